/* The logger that the program set.
 *
 * Owns the callback and the form of a line. Hold no lock while writing a line, as the callback may call the library.
 */
#ifndef LOG_H
#define LOG_H

#include "contract.h"

/* Write a line of up to 511 characters, with a format of wprintf (%ls for a text). */
void log_line(WINTUN_LOGGER_LEVEL level, const WCHAR *format, ...);

/* Write a line from another thread and wait until it is written, as callbacks of Windows do. */
void log_line_elsewhere(WINTUN_LOGGER_LEVEL level, const WCHAR *line);

#endif
