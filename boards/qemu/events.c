// What MicroPython's port qemu lacks: a clock, waiting for events, Ctrl-C.
//
// Interrupts stay masked, for nothing needs a handler; but WFI ends when one is pending. So an idle board costs the host
// nothing, and what arrives is taken at once.

#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"
#if MICROPY_PY_LWIP
#include "lwip/timeouts.h"
#endif
#include "board.h"
#include "uart.h"

void __real_uart_init(void);
int __real_uart_rx_chr(void);

// What the UART has received and nobody has read; the last place stays free.
static uint8_t input[256];
static uint8_t input_start, input_end;

// Something happened since the last wait: it may be what the next wait is for.
static bool event;

mp_uint_t mp_hal_ticks_ms(void) {
    return board_us() / 1000;
}

mp_uint_t mp_hal_ticks_us(void) {
    return board_us();
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return board_us();
}

void mp_hal_delay_us(mp_uint_t us) {
    mp_uint_t start = mp_hal_ticks_us();
    while (mp_hal_ticks_us() - start < us) {
    }
}

void mp_hal_delay_ms(mp_uint_t ms) {
    mp_uint_t start = mp_hal_ticks_ms();
    mp_uint_t passed = 0;
    do {
        mp_event_wait_ms(ms - passed);
        passed = mp_hal_ticks_ms() - start;
    } while (passed < ms);
}

#if MICROPY_PY_LWIP
// lwIP's clock.
uint32_t sys_now(void) {
    return mp_hal_ticks_ms();
}
#endif

// MICROPY_INTERNAL_EVENT_HOOK
void board_poll(void) {
    // First the causes are cleared, then what they told of is looked at: what comes later is a cause anew.
    board_clear_interrupts();
    int c;
    while ((uint8_t)(input_end + 1) != input_start && (c = __real_uart_rx_chr()) >= 0) {
        if (c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            input[input_end++] = c;
        }
        event = true;
    }
    #if MICROPY_PY_LWIP
    event |= network_poll();
    #endif
}

// MICROPY_INTERNAL_WFE
void board_wait(uint32_t timeout_ms) {
    uint32_t ms = MIN(timeout_ms, BOARD_SLEEP_MAX_MS);
    #if MICROPY_PY_LWIP
    ms = MIN(ms, sys_timeouts_sleeptime());
    #endif
    if (!event && ms > 0) {
        board_sleep(ms);
    }
    event = false;
}

/******************************************************************************/
// In the place of the port's functions: see common.mk.

void __wrap_uart_init(void) {
    __real_uart_init();
    board_init();
}

int __wrap_uart_rx_chr(void) {
    if (input_start == input_end) {
        mp_event_wait_ms(BOARD_SLEEP_MAX_MS);
        return UART_RX_NO_CHAR;
    }
    return input[input_start++];
}

uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t poll_flags) {
    board_poll();
    return poll_flags & (input_start == input_end ? MP_STREAM_POLL_WR : MP_STREAM_POLL_RD | MP_STREAM_POLL_WR);
}
