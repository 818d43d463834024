#include "variants/standard/mpconfigvariant.h"

// The port's Makefile says 0 on the command line; in 1.25 there is no asking it for 1.
#undef MICROPY_PY_THREAD_GIL
#define MICROPY_PY_THREAD_GIL                (1)

// What 1.26 adds for a GIL, word for word, because there it comes again:
// the port's atomic sections take a recursive mutex, ...
#define MICROPY_PY_THREAD_RECURSIVE_MUTEX    (MICROPY_PY_THREAD)
// ... and Ctrl-C is raised by the VM, as a signal handler must not.
#undef MICROPY_ASYNC_KBD_INTR
#define MICROPY_ASYNC_KBD_INTR               (!MICROPY_PY_THREAD_GIL)

// The port's own keeps the GIL while it sleeps, which that of QuecPython and of the ESP32 does not.
#include <unistd.h>
#define mp_hal_delay_ms(ms) do { \
        MP_THREAD_GIL_EXIT(); \
        usleep((ms) * 1000); \
        MP_THREAD_GIL_ENTER(); \
} while (0)
