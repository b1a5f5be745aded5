/* Windows' functions for addresses and routes. */
#include "tables.h"

#include <stdlib.h>
#include <string.h>

#define ENDLESS 0xFFFFFFFF
#define PREFERRED 4
#define NETMGMT 3

static size_t address_size(const SOCKADDR_INET *address) {
    return address->si_family == FAMILY_IPV4 ? 4 : 16;
}

static const unsigned char *address_bytes(const SOCKADDR_INET *address) {
    return (const unsigned char *)address + (address->si_family == FAMILY_IPV4 ? 4 : 8);
}

static int same_address(const SOCKADDR_INET *left, const SOCKADDR_INET *right) {
    return left->si_family == right->si_family &&
           !memcmp(address_bytes(left), address_bytes(right), address_size(left));
}

/* Return true if any bit after the first `length` is set. */
static int has_host_bits(const SOCKADDR_INET *address, unsigned length) {
    for (unsigned bit = length; bit < address_size(address) * 8; bit++)
        if (address_bytes(address)[bit / 8] >> (7 - bit % 8) & 1)
            return 1;
    return 0;
}

void WINAPI InitializeUnicastIpAddressEntry(MIB_UNICASTIPADDRESS_ROW *row) {
    memset(row, 0, sizeof *row);
    row->ValidLifetime = row->PreferredLifetime = ENDLESS;
    row->OnLinkPrefixLength = 255;
}

void WINAPI InitializeIpForwardEntry(MIB_IPFORWARD_ROW2 *row) {
    memset(row, 0, sizeof *row);
    row->ValidLifetime = row->PreferredLifetime = ENDLESS;
    row->Protocol = NETMGMT;
    row->Metric = ENDLESS;
}

static int find_address(const MIB_UNICASTIPADDRESS_ROW *row, int anywhere) {
    for (int number = 0; number < now.address_count; number++)
        if (same_address(&now.addresses[number].Address, &row->Address) &&
            (anywhere || now.addresses[number].InterfaceLuid.Value == row->InterfaceLuid.Value))
            return number;
    return -1;
}

DWORD WINAPI CreateUnicastIpAddressEntry(CONST MIB_UNICASTIPADDRESS_ROW *row) {
    ULONG code = changing(__func__);
    complain_if((uintptr_t)row & 7, __func__, "the row is not aligned to 8 bytes");
    complain_if(row->ValidLifetime != ENDLESS || row->PreferredLifetime != ENDLESS, __func__, "it does not last");
    complain_if(row->DadState != PREFERRED, __func__, "the address is not preferred at once");
    complain_if(row->SkipAsSource || row->ScopeId.Value || row->CreationTimeStamp.QuadPart, __func__, "others are set");
    if (code || !find_interface(row->InterfaceLuid.Value))
        return code ? code : ERROR_NOT_FOUND;
    if (family_number(row->Address.si_family) < 0 || row->OnLinkPrefixLength > address_size(&row->Address) * 8)
        return ERROR_INVALID_PARAMETER;
    if (find_address(row, 1) >= 0)
        return ERROR_OBJECT_ALREADY_EXISTS;
    now.addresses[now.address_count++] = *row;
    return NO_ERROR;
}

DWORD WINAPI DeleteUnicastIpAddressEntry(CONST MIB_UNICASTIPADDRESS_ROW *row) {
    ULONG code = changing(__func__);
    int number = find_address(row, 0);
    if (code || number < 0)
        return code ? code : ERROR_NOT_FOUND;
    now.addresses[number] = now.addresses[--now.address_count];
    return NO_ERROR;
}

static int find_route(const MIB_IPFORWARD_ROW2 *row) {
    for (int number = 0; number < now.route_count; number++) {
        const MIB_IPFORWARD_ROW2 *route = &now.routes[number];
        if (route->InterfaceLuid.Value == row->InterfaceLuid.Value &&
            route->DestinationPrefix.PrefixLength == row->DestinationPrefix.PrefixLength &&
            same_address(&route->DestinationPrefix.Prefix, &row->DestinationPrefix.Prefix) &&
            same_address(&route->NextHop, &row->NextHop))
            return number;
    }
    return -1;
}

DWORD WINAPI CreateIpForwardEntry2(CONST MIB_IPFORWARD_ROW2 *row) {
    const IP_ADDRESS_PREFIX *to = &row->DestinationPrefix;
    ULONG code = changing(__func__);
    complain_if((uintptr_t)row & 7, __func__, "the row is not aligned to 8 bytes");
    complain_if(row->ValidLifetime != ENDLESS || row->Protocol != NETMGMT, __func__, "the row was not initialised");
    complain_if(row->Metric != 0, __func__, "the metric is not 0");
    if (code || !find_interface(row->InterfaceLuid.Value))
        return code ? code : ERROR_NOT_FOUND;
    if (family_number(to->Prefix.si_family) < 0 || to->PrefixLength > address_size(&to->Prefix) * 8 ||
        row->NextHop.si_family != to->Prefix.si_family || has_host_bits(&to->Prefix, to->PrefixLength))
        return ERROR_INVALID_PARAMETER;
    if (find_route(row) >= 0)
        return ERROR_OBJECT_ALREADY_EXISTS;
    now.routes[now.route_count++] = *row;
    return NO_ERROR;
}

DWORD WINAPI DeleteIpForwardEntry2(CONST MIB_IPFORWARD_ROW2 *row) {
    ULONG code = changing(__func__);
    int number = find_route(row);
    if (code || number < 0)
        return code ? code : ERROR_NOT_FOUND;
    now.routes[number] = now.routes[--now.route_count];
    return NO_ERROR;
}

/* Return a table as Windows does: the number of rows and the rows, in memory that FreeMibTable frees. */
static void *table_of(const void *rows, ULONG count, size_t size, size_t offset) {
    char *table = malloc(offset + count * size);
    *(ULONG *)table = count;
    memcpy(table + offset, rows, count * size);
    now.unfreed++;
    return table;
}

DWORD WINAPI GetUnicastIpAddressTable(ADDRESS_FAMILY family, MIB_UNICASTIPADDRESS_TABLE **table) {
    ULONG code = looking(__func__);
    complain_if(family != 0, __func__, "the fake has the table of both families only");
    if (!code)
        *table = table_of(now.addresses, now.address_count, sizeof *now.addresses,
                          offsetof(MIB_UNICASTIPADDRESS_TABLE, Table));
    return code;
}

DWORD WINAPI GetIpForwardTable2(ADDRESS_FAMILY family, MIB_IPFORWARD_TABLE2 **table) {
    ULONG code = looking(__func__);
    complain_if(family != 0, __func__, "the fake has the table of both families only");
    if (!code)
        *table = table_of(now.routes, now.route_count, sizeof *now.routes, offsetof(MIB_IPFORWARD_TABLE2, Table));
    return code;
}

void WINAPI FreeMibTable(void *table) {
    complain_if(!table, __func__, "there is no table");
    free(table);
    now.unfreed--;
}
