/* The fake's state, and the controls for tests. */
#include "tables.h"

#include <stdio.h>
#include <string.h>

#define LUID_INDEX(luid) ((ULONG)((luid) >> 24) & 0xFFFFFF)
#define LUID_TYPE(luid) ((ULONG)((luid) >> 48))
#define PROP_VIRTUAL 53
#define MEDIUM_IP 19

state now;

void FakeReset(void) {
    memset(&now, 0, sizeof now);
}

void FakeAddInterface(ULONG64 luid, ULONG index, const WCHAR *alias, ULONG type, int medium) {
    nic *added = &now.nics[now.nic_count++];
    memset(added, 0, sizeof *added);
    added->link.InterfaceLuid.Value = luid;
    added->link.InterfaceIndex = index;
    added->link.InterfaceGuid.Data1 = index;
    memcpy(added->link.Alias, alias, (text_length(alias) + 1) * sizeof *alias);
    added->link.Mtu = 65535;
    added->link.Type = type;
    added->link.MediaType = medium;
    added->link.OperStatus = 2; /* Down, as before a session is open. */
    for (int number = 0; number < 2; number++) {
        MIB_IPINTERFACE_ROW *row = &added->families[number];
        row->Family = number ? FAMILY_IPV6 : FAMILY_IPV4;
        row->InterfaceLuid.Value = luid;
        row->InterfaceIndex = index;
        row->NlMtu = 65535;
        row->UseAutomaticMetric = 1;
        row->Metric = 25;
        row->DadTransmits = number ? 1 : 3;
        row->RouterDiscoveryBehavior = number ? 1 : 2;
        row->SitePrefixLength = number ? 64 : 32; /* Windows rejects the value that it returns for IPv4. */
    }
}

void FakeRemoveInterface(ULONG64 luid) {
    nic *gone = find_interface(luid);
    if (gone)
        *gone = now.nics[--now.nic_count];
}

void FakeAdopt(int adopt) {
    now.adopt = adopt;
}

void FakeHideFamily(ULONG64 luid, ULONG family, int calls) {
    find_interface(luid)->hidden[family_number(family)] = calls;
}

MIB_IF_ROW2 *FakeLink(ULONG64 luid) {
    return &find_interface(luid)->link;
}

void FakeAddSystemRoute(const MIB_IPFORWARD_ROW2 *row) {
    now.routes[now.route_count++] = *row;
    now.system_routes++;
}

void FakeFail(const char *function, ULONG code) {
    snprintf(now.failing, sizeof now.failing, "%s", function);
    now.failing_code = code;
}

const char *FakeCalls(void) {
    return now.calls;
}

const char *FakeComplaints(void) {
    return now.complaints;
}

int FakeUnfreed(void) {
    return now.unfreed;
}

int FakeLeft(void) {
    return now.address_count + now.route_count - now.system_routes;
}

const MIB_IPINTERFACE_ROW *FakeFamily(ULONG64 luid, ULONG family) {
    return &find_interface(luid)->families[family_number(family)];
}

const WCHAR *FakeDns(ULONG64 luid, ULONG family, int which) {
    return find_interface(luid)->dns[family_number(family)][which];
}

nic *find_interface(ULONG64 luid) {
    for (int number = 0; number < now.nic_count; number++)
        if (now.nics[number].link.InterfaceLuid.Value == luid)
            return &now.nics[number];
    if (!now.adopt || LUID_TYPE(luid) != PROP_VIRTUAL)
        return NULL;
    const WCHAR alias[] = {'a', 'd', 'o', 'p', 't', 'e', 'd', 0};
    FakeAddInterface(luid, LUID_INDEX(luid), alias, PROP_VIRTUAL, MEDIUM_IP);
    return &now.nics[now.nic_count - 1];
}

ULONG looking(const char *function) {
    if (strcmp(function, now.failing))
        return NO_ERROR;
    now.failing[0] = 0;
    return now.failing_code;
}

ULONG changing(const char *function) {
    size_t used = strlen(now.calls);
    snprintf(now.calls + used, sizeof now.calls - used, "%s\n", function);
    return looking(function);
}

void complain_if(int wrong, const char *function, const char *what) {
    size_t used = strlen(now.complaints);
    if (wrong)
        snprintf(now.complaints + used, sizeof now.complaints - used, "%s: %s\n", function, what);
}

int family_number(ULONG family) {
    return family == FAMILY_IPV4 ? 0 : family == FAMILY_IPV6 ? 1 : -1;
}

size_t text_length(const WCHAR *text) {
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}
