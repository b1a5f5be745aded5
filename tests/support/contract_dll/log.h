/* The logger that the program set.
 *
 * Owns the callback and the form of a line; nobody may hold a lock of ours who writes one, for the callback may call.
 */
#ifndef LOG_H
#define LOG_H

#include "contract.h"

/* Write a line, in the form of printf for wide characters (%ls for a text), of up to 511 characters. */
void log_line(WINTUN_LOGGER_LEVEL level, const WCHAR *format, ...);

/* Write a line from another thread and wait until it is written, as what Windows calls back does. */
void log_line_elsewhere(WINTUN_LOGGER_LEVEL level, const WCHAR *line);

#endif
