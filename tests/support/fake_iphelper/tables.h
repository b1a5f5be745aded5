/* The fake's state: interfaces, addresses, routes, and its record of calls and faults. */
#ifndef TABLES_H
#define TABLES_H

#include "fake.h"

#define MOST 32
#define TEXT_SIZE 256

typedef struct {
    MIB_IF_ROW2 link;
    MIB_IPINTERFACE_ROW families[2];
    int hidden[2]; /* The number of calls for which a family is hidden; negative: for ever. */
    WCHAR dns[2][2][TEXT_SIZE];
} nic;

typedef struct {
    nic nics[MOST];
    MIB_UNICASTIPADDRESS_ROW addresses[MOST];
    MIB_IPFORWARD_ROW2 routes[MOST];
    int nic_count, address_count, route_count, system_routes, unfreed, adopt;
    char calls[1 << 14], complaints[1 << 12], failing[64];
    ULONG failing_code;
} state;

extern state now;

/* Return the interface, or NULL. */
nic *find_interface(ULONG64 luid);

/* Record a call that changes something; return the code to fail with, or NO_ERROR. */
ULONG changing(const char *function);

/* The same for a call that only reads. */
ULONG looking(const char *function);

/* If `wrong`, keep `what` for FakeComplaints. */
void complain_if(int wrong, const char *function, const char *what);

int family_number(ULONG family); /* 0, 1, or -1. */
size_t text_length(const WCHAR *text);

#endif
