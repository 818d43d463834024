// The port's configuration, and what needs a clock and events: see events.c.
#include "mpconfigport.h"

#undef MICROPY_PY_SELECT
#undef MICROPY_PY_TIME
#undef MICROPY_PY_ASYNCIO
#define MICROPY_PY_SELECT                       (1)
#define MICROPY_PY_TIME                         (1)
#define MICROPY_PY_ASYNCIO                      (1)

// MicroPython's numbers, as most ports have them, instead of the C library's.
#define MICROPY_USE_INTERNAL_ERRNO              (1)

#if MICROPY_PY_LWIP
#define MICROPY_PY_NETWORK                      (1)
#define MICROPY_PY_NETWORK_HOSTNAME_DEFAULT     "umqtt"
#endif

void board_poll(void);
void board_wait(uint32_t timeout_ms);
#define MICROPY_INTERNAL_EVENT_HOOK             board_poll()
#define MICROPY_INTERNAL_WFE(TIMEOUT_MS)        board_wait(TIMEOUT_MS)

// The network and Ctrl-C get their turn also while a script computes.
#define MICROPY_VM_HOOK_INIT                    static uint32_t vm_hook_divisor = 64;
#define MICROPY_VM_HOOK_LOOP \
    if (--vm_hook_divisor == 0) { \
        vm_hook_divisor = 64; \
        board_poll(); \
    }
#define MICROPY_VM_HOOK_RETURN                  MICROPY_VM_HOOK_LOOP
