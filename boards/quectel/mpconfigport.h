// QuecPython's configuration of 2026, as far as the module and the headers it includes depend on it.
#include <alloca.h>
#include <stdint.h>

#define MICROPY_CONFIG_ROM_LEVEL        (MICROPY_CONFIG_ROM_LEVEL_EXTRA_FEATURES)
#define MICROPY_ENABLE_GC               (1)
#define MICROPY_ENABLE_FINALISER        (1)
#define MICROPY_ENABLE_EXTERNAL_IMPORT  (1)
#define MICROPY_ENABLE_SCHEDULER        (1)
#define MICROPY_FLOAT_IMPL              (MICROPY_FLOAT_IMPL_DOUBLE)
#define MICROPY_LONGINT_IMPL            (MICROPY_LONGINT_IMPL_MPZ)
#define MICROPY_USE_INTERNAL_ERRNO      (1)
#define MICROPY_PY_THREAD               (1)
#define MICROPY_PY_THREAD_GIL           (1)

typedef int32_t mp_int_t;
typedef uint32_t mp_uint_t;
typedef long mp_off_t;

#define MICROPY_HW_BOARD_NAME "Quectel"
#define MICROPY_HW_MCU_NAME "QUECTEL"
#define MP_STATE_PORT MP_STATE_VM
