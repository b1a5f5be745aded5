/* The fake's state: interfaces, addresses and routes, and what it noticed. */
#ifndef TABLES_H
#define TABLES_H

#include "fake.h"

#define MOST 32
#define TEXT_SIZE 256

typedef struct {
    MIB_IF_ROW2 link;
    MIB_IPINTERFACE_ROW families[2];
    int hidden[2]; /* Calls for which a family is off; negative: for ever. */
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

/* The interface, or NULL. */
nic *find_interface(ULONG64 luid);

/* Write a change down; the code it has to fail with, or NO_ERROR. */
ULONG changing(const char *function);

/* The same for what only looks. */
ULONG looking(const char *function);

/* Where `wrong`, keep `what` for FakeComplaints. */
void complain_if(int wrong, const char *function, const char *what);

int family_number(ULONG family); /* 0, 1, or -1. */
size_t text_length(const WCHAR *text);

#endif
