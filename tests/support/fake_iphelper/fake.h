/* What tests ask of the fake, besides the functions of Windows it has. For one thread.
 *
 * Interfaces are made by FakeAddInterface, or by themselves where FakeAdopt allows it: then every LUID of
 * type 53 is one, as if a driver had made it.
 */
#ifndef FAKE_H
#define FAKE_H

#include "netio.h"

/* Forget everything. */
void FakeReset(void);

/* An interface with both families; `alias` ends with a zero, and `index` is that of the interface. */
void FakeAddInterface(ULONG64 luid, ULONG index, const WCHAR *alias, ULONG type, int medium);
void FakeRemoveInterface(ULONG64 luid);
void FakeAdopt(int adopt);

/* A family that is off, for the next `calls` calls of GetIpInterfaceEntry about it; negative: for ever. */
void FakeHideFamily(ULONG64 luid, ULONG family, int calls);

/* What GetIfEntry2 and GetIfTable2 give for the interface; it stays the fake's. */
MIB_IF_ROW2 *FakeLink(ULONG64 luid);

/* A route as Windows makes them by itself. */
void FakeAddSystemRoute(const MIB_IPFORWARD_ROW2 *row);

/* The next call of `function` fails with `code`. */
void FakeFail(const char *function, ULONG code);

/* The names of the functions called since FakeReset, those that look only left out; each ends with a newline. */
const char *FakeCalls(void);

/* What arrived not as Windows wants it, in words, or an empty text. */
const char *FakeComplaints(void);

/* Tables given out and not freed. */
int FakeUnfreed(void);

/* Addresses and routes that were added and not removed. */
int FakeLeft(void);

/* The row of a family, and DNS settings of a family (0: servers, 1: search domains). */
const MIB_IPINTERFACE_ROW *FakeFamily(ULONG64 luid, ULONG family);
const WCHAR *FakeDns(ULONG64 luid, ULONG family, int which);

#endif
