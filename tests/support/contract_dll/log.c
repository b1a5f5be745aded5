/* log.h, and WintunSetLogger. */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <wchar.h>

#include "faults.h"
#include "portable.h"

enum { MAX_LINE = 512 };

static _Atomic(WINTUN_LOGGER_CALLBACK) logger;

static void write_line(WINTUN_LOGGER_LEVEL level, const WCHAR *line)
{
    WINTUN_LOGGER_CALLBACK callback = atomic_load(&logger);
    if (callback)
        callback(level, filetime_now(), line);
}

void log_line(WINTUN_LOGGER_LEVEL level, const WCHAR *format, ...)
{
    WCHAR line[MAX_LINE];
    va_list arguments;
    va_start(arguments, format);
    vswprintf(line, MAX_LINE, format, arguments);
    va_end(arguments);
    write_line(level, line);
}

struct order {
    WINTUN_LOGGER_LEVEL level;
    const WCHAR *line;
};

static void run(void *argument)
{
    const struct order *order = argument;
    write_line(order->level, order->line);
}

void log_line_elsewhere(WINTUN_LOGGER_LEVEL level, const WCHAR *line)
{
    struct order order = {level, line};
    thread *other = thread_start(run, &order);
    if (other)
        thread_join(other);
}

VOID WINAPI WintunSetLogger(WINTUN_LOGGER_CALLBACK NewLogger)
{
    fault_of_call(CONTRACT_SET_LOGGER);
    atomic_store(&logger, NewLogger);
}
