// What differs between the versions of MicroPython, and nowhere else.
#ifndef MICROPY_INCLUDED_UMQTT_COMPAT_H
#define MICROPY_INCLUDED_UMQTT_COMPAT_H

#include "py/mpconfig.h"
#include "py/mperrno.h"

// Not among MicroPython's own.
#ifndef MP_EPROTO
#define MP_EPROTO (71)
#endif
#ifndef MP_ENOTCONN
#define MP_ENOTCONN (107)
#endif
#ifndef MP_ECONNABORTED
#define MP_ECONNABORTED (103)
#endif
#ifndef MP_ECONNRESET
#define MP_ECONNRESET (104)
#endif

// Before 1.22.
#if !defined(MICROPY_VERSION_MINOR) || (MICROPY_VERSION_MAJOR == 1 && MICROPY_VERSION_MINOR < 22)
#define mp_event_wait_ms(ms) mp_hal_delay_ms(ms)
#endif

// Before 1.26.
#ifndef MP_NORETURN
#define MP_NORETURN NORETURN
#endif

#endif // MICROPY_INCLUDED_UMQTT_COMPAT_H
