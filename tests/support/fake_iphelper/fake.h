/* The controls of the fake, besides Windows' functions. For one thread.
 *
 * FakeAddInterface makes interfaces. After FakeAdopt, every LUID of type 53 is an interface as well, as if a
 * driver had made it.
 */
#ifndef FAKE_H
#define FAKE_H

#include "netio.h"

/* Reset all state. */
void FakeReset(void);

/* Add an interface with both families; `alias` ends with a zero, `index` is the interface index. */
void FakeAddInterface(ULONG64 luid, ULONG index, const WCHAR *alias, ULONG type, int medium);
void FakeRemoveInterface(ULONG64 luid);
void FakeAdopt(int adopt);

/* Hide a family for the next `calls` calls of GetIpInterfaceEntry about it; negative: for ever. */
void FakeHideFamily(ULONG64 luid, ULONG family, int calls);

/* Return the row of GetIfEntry2 and GetIfTable2 for the interface; the fake owns it. */
MIB_IF_ROW2 *FakeLink(ULONG64 luid);

/* Add a route as Windows does on its own. */
void FakeAddSystemRoute(const MIB_IPFORWARD_ROW2 *row);

/* Make the next call of `function` fail with `code`. */
void FakeFail(const char *function, ULONG code);

/* Return the names of the functions called since FakeReset, except those that only read; each ends with a newline. */
const char *FakeCalls(void);

/* Return a description of invalid arguments, or an empty text. */
const char *FakeComplaints(void);

/* Return the number of tables that were returned and not freed. */
int FakeUnfreed(void);

/* Return the number of addresses and routes that were added and not removed. */
int FakeLeft(void);

/* Return the row of a family, and the DNS settings of a family (0: servers, 1: search domains). */
const MIB_IPINTERFACE_ROW *FakeFamily(ULONG64 luid, ULONG family);
const WCHAR *FakeDns(ULONG64 luid, ULONG family, int which);

#endif
