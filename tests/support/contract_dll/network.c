/* network.h, and ContractSetNetwork. */
#include "network.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <wctype.h>

enum { MAX_NAME = 128, MAX_VARIABLE = 4096 };

static const char VARIABLE[] = "THREEPIPE_CONTRACT_UDP";

struct entry {
    struct entry *next;
    struct network network;
    WCHAR name[MAX_NAME];
};

static mutex lock = MUTEX_INIT;
static struct entry *entries;

bool same_name(const WCHAR *one, const WCHAR *other)
{
    for (; *one && towlower((wint_t)*one) == towlower((wint_t)*other); one++)
        other++;
    return !*one && !*other;
}

/* Return true if the ASCII text from `text` to `end` is `name`. */
static bool names(const char *text, const char *end, const WCHAR *name)
{
    WCHAR wide[MAX_NAME];
    size_t length = (size_t)(end - text);
    if (length >= MAX_NAME)
        return false;
    for (size_t index = 0; index < length; index++)
        wide[index] = (unsigned char)text[index];
    wide[length] = 0;
    return same_name(wide, name);
}

static struct network network_of_environment(const WCHAR *name)
{
    char value[MAX_VARIABLE];
    get_environment(VARIABLE, value, sizeof value);
    for (char *item = value, *next; item; item = next) {
        if ((next = strchr(item, ',')))
            *next++ = 0;
        char *local = strchr(item, ':'), *remote = local ? strchr(local + 1, ':') : NULL;
        if (remote && names(item, local, name))
            return (struct network){(uint16_t)atoi(local + 1), (uint16_t)atoi(remote + 1)};
    }
    return (struct network){0, 0};
}

struct network network_of(const WCHAR *name)
{
    struct network found = {0, 0};
    bool known = false;
    mutex_lock(&lock);
    for (struct entry *entry = entries; entry && !known; entry = entry->next) {
        known = same_name(entry->name, name);
        found = entry->network;
    }
    mutex_unlock(&lock);
    return known ? found : network_of_environment(name);
}

VOID WINAPI ContractSetNetwork(LPCWSTR Name, DWORD LocalPort, DWORD RemotePort)
{
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return;
    entry->network = (struct network){(uint16_t)LocalPort, (uint16_t)RemotePort};
    wcsncpy(entry->name, Name, MAX_NAME - 1);
    mutex_lock(&lock);
    entry->next = entries; /* The first entry with the name counts. */
    entries = entry;
    mutex_unlock(&lock);
}

void networks_reset(void)
{
    mutex_lock(&lock);
    while (entries) {
        struct entry *entry = entries;
        entries = entry->next;
        free(entry);
    }
    mutex_unlock(&lock);
}
