/* Windows' functions for interfaces: names and numbers, links, families and DNS. */
#include "tables.h"

#include <stdlib.h>
#include <string.h>

#define SMALLEST_IPV6_MTU 1280
#define DNS_IPV6 1
#define DNS_SERVERS_AND_SEARCH 6

static int equal_in_any_case(const WCHAR *left, const WCHAR *right) {
    for (;; left++, right++) {
        WCHAR a = *left >= 'A' && *left <= 'Z' ? *left | 32 : *left;
        WCHAR b = *right >= 'A' && *right <= 'Z' ? *right | 32 : *right;
        if (a != b)
            return 0;
        if (!a)
            return 1;
    }
}

DWORD WINAPI ConvertInterfaceLuidToIndex(CONST NET_LUID *luid, NET_IFINDEX *index) {
    nic *found = find_interface(luid->Value);
    ULONG code = looking(__func__);
    if (code || !found)
        return code ? code : ERROR_INVALID_PARAMETER;
    *index = found->link.InterfaceIndex;
    return NO_ERROR;
}

DWORD WINAPI ConvertInterfaceLuidToGuid(CONST NET_LUID *luid, GUID *guid) {
    nic *found = find_interface(luid->Value);
    if (!found)
        return ERROR_INVALID_PARAMETER;
    *guid = found->link.InterfaceGuid;
    return NO_ERROR;
}

DWORD WINAPI ConvertInterfaceLuidToAlias(CONST NET_LUID *luid, WCHAR *alias, SIZE_T length) {
    nic *found = find_interface(luid->Value);
    if (!found || text_length(found->link.Alias) >= length)
        return ERROR_INVALID_PARAMETER;
    memcpy(alias, found->link.Alias, (text_length(found->link.Alias) + 1) * sizeof *alias);
    return NO_ERROR;
}

DWORD WINAPI ConvertInterfaceAliasToLuid(CONST WCHAR *alias, NET_LUID *luid) {
    for (int number = 0; number < now.nic_count; number++)
        if (equal_in_any_case(now.nics[number].link.Alias, alias)) {
            *luid = now.nics[number].link.InterfaceLuid;
            return NO_ERROR;
        }
    return ERROR_INVALID_PARAMETER;
}

DWORD WINAPI GetIfEntry2(MIB_IF_ROW2 *row) {
    nic *found = find_interface(row->InterfaceLuid.Value);
    ULONG code = looking(__func__);
    complain_if((uintptr_t)row & 7, __func__, "the row is not aligned to 8 bytes");
    if (code || !found)
        return code ? code : ERROR_FILE_NOT_FOUND;
    *row = found->link;
    return NO_ERROR;
}

DWORD WINAPI GetIfTable2(MIB_IF_TABLE2 **table) {
    ULONG code = looking(__func__);
    if (code)
        return code;
    *table = malloc(offsetof(MIB_IF_TABLE2, Table) + now.nic_count * sizeof(MIB_IF_ROW2));
    (*table)->NumEntries = now.nic_count;
    for (int number = 0; number < now.nic_count; number++)
        memcpy((char *)(*table)->Table + number * sizeof(MIB_IF_ROW2), &now.nics[number].link, sizeof(MIB_IF_ROW2));
    now.unfreed++;
    return NO_ERROR;
}

void WINAPI InitializeIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    memset(row, 0, sizeof *row);
    row->LinkLocalAddressBehavior = -1;
    row->RouterDiscoveryBehavior = -1;
}

DWORD WINAPI GetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    nic *found = find_interface(row->InterfaceLuid.Value);
    int number = family_number(row->Family);
    ULONG code = looking(__func__);
    complain_if((uintptr_t)row & 7, __func__, "the row is not aligned to 8 bytes");
    complain_if(row->RouterDiscoveryBehavior != -1, __func__, "the row was not initialised");
    if (code || !found || number < 0)
        return code ? code : found ? ERROR_INVALID_PARAMETER : ERROR_FILE_NOT_FOUND;
    if (found->hidden[number]) {
        found->hidden[number] -= found->hidden[number] > 0;
        return ERROR_NOT_FOUND;
    }
    *row = found->families[number];
    return NO_ERROR;
}

DWORD WINAPI SetIpInterfaceEntry(MIB_IPINTERFACE_ROW *row) {
    nic *found = find_interface(row->InterfaceLuid.Value);
    int number = family_number(row->Family);
    ULONG code = changing(__func__);
    if (code || !found)
        return code ? code : ERROR_FILE_NOT_FOUND;
    if (number < 0 || (number == 0 && row->SitePrefixLength) || (number && row->NlMtu < SMALLEST_IPV6_MTU))
        return ERROR_INVALID_PARAMETER;
    ULONG kept = found->families[number].SitePrefixLength;
    found->families[number] = *row;
    found->families[number].SitePrefixLength = kept;
    return NO_ERROR;
}

static void keep_text(WCHAR *target, const WCHAR *text) {
    size_t length = text_length(text);
    complain_if(length >= TEXT_SIZE, "SetInterfaceDnsSettings", "the text is too long for the fake");
    memcpy(target, text, (length < TEXT_SIZE ? length + 1 : 0) * sizeof *text);
}

DWORD WINAPI SetInterfaceDnsSettings(GUID guid, const DNS_SETTINGS_OF_INTERFACE *settings) {
    ULONG code = changing(__func__);
    complain_if(settings->Version != 1, __func__, "the version is not 1");
    complain_if((settings->Flags & ~DNS_IPV6) != DNS_SERVERS_AND_SEARCH, __func__, "the flags name other settings");
    complain_if(settings->Domain || settings->ProfileNameServer || settings->EnableLLMNR, __func__, "others are set");
    if (code)
        return code;
    for (int number = 0; number < now.nic_count; number++)
        if (!memcmp(&now.nics[number].link.InterfaceGuid, &guid, sizeof guid)) {
            keep_text(now.nics[number].dns[settings->Flags & DNS_IPV6][0], settings->NameServer);
            keep_text(now.nics[number].dns[settings->Flags & DNS_IPV6][1], settings->SearchList);
            return NO_ERROR;
        }
    return ERROR_FILE_NOT_FOUND;
}
