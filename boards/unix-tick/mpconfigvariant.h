#include "../unix-gil/mpconfigvariant.h"

// As where nothing can wait for a socket: port.c has to look at it now and then.
#define UMQTT_LINUX (0)

// The port's own keeps the GIL while it sleeps.
#include <unistd.h>
#define mp_hal_delay_ms(ms) do { \
        MP_THREAD_GIL_EXIT(); \
        usleep((ms) * 1000); \
        MP_THREAD_GIL_ENTER(); \
} while (0)
