// The MPS2 boards under QEMU: clock, waiting for events, Ctrl-C.
//
// Interrupts stay masked, for nothing needs a handler; but WFI ends when one is pending. So an idle board costs the host
// nothing, and what arrives is taken at once.

#include "py/mphal.h"
#include "py/runtime.h"
#include "py/stream.h"
#include "shared/runtime/interrupt_char.h"
#include "lwip/timeouts.h"
#include "board.h"
#include "uart.h"

#define REG(address) (*(volatile uint32_t *)(address))

#define COUNTER         REG(0x40028018)
#define COUNTS_PER_MS   (25000)

#define UART_IRQ        (0)
#define UART_CTRL       REG(0x40004008)
#define UART_CTRL_RX_INTERRUPT (1 << 3)
#define UART_INTSTATUS  REG(0x4000400c)
#define UART_INTSTATUS_RX (1 << 1)

#define SYSTICK_CTRL    REG(0xe000e010)
#define SYSTICK_LOAD    REG(0xe000e014)
#define SYSTICK_VALUE   REG(0xe000e018)
#define SYSTICK_MAX_MS  (0xffffff / COUNTS_PER_MS)
#define NVIC_ENABLE     REG(0xe000e100)
#define NVIC_CLEAR      REG(0xe000e280)
#define ICSR            REG(0xe000ed04)
#define ICSR_CLEAR_SYSTICK (1 << 25)
#define CPACR           REG(0xe000ed88)
#define CPACR_FPU       (0xf << 20)

#define IRQS            (1 << UART_IRQ | 1 << LAN9118_IRQ)

void __real_uart_init(void);
int __real_uart_rx_chr(void);

// What the UART has received and nobody has read; the last place stays free.
static uint8_t input[256];
static uint8_t input_start, input_end;

// Something happened since the last wait: it may be what the next wait is for.
static bool event;

/******************************************************************************/
// Clock

static uint64_t counts(void) {
    // It wraps every 171 s; an idle board looks more often.
    static uint32_t high, last;
    uint32_t now = COUNTER;
    high += now < last;
    last = now;
    return (uint64_t)high << 32 | now;
}

mp_uint_t mp_hal_ticks_ms(void) {
    return counts() / COUNTS_PER_MS;
}

mp_uint_t mp_hal_ticks_us(void) {
    return counts() / (COUNTS_PER_MS / 1000);
}

mp_uint_t mp_hal_ticks_cpu(void) {
    return COUNTER;
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

// lwIP's clock.
uint32_t sys_now(void) {
    return mp_hal_ticks_ms();
}

// Good enough for port numbers and the like.
uint32_t board_random(void) {
    static uint32_t state = 1;
    state = (state ^ COUNTER) * 1664525 + 1013904223;
    return state >> 16 | state << 16;
}

/******************************************************************************/
// Events

void board_poll(void) {
    // First the causes are cleared, then what they told of is looked at: what comes later is a cause anew.
    UART_INTSTATUS = UART_INTSTATUS_RX;
    NVIC_CLEAR = IRQS;
    int c;
    while ((uint8_t)(input_end + 1) != input_start && (c = __real_uart_rx_chr()) >= 0) {
        if (c == mp_interrupt_char) {
            mp_sched_keyboard_interrupt();
        } else {
            input[input_end++] = c;
        }
        event = true;
    }
    event |= network_poll();
}

void board_wait(uint32_t timeout_ms) {
    uint32_t ms = MIN(MIN(timeout_ms, sys_timeouts_sleeptime()), SYSTICK_MAX_MS);
    if (!event && ms > 0) {
        SYSTICK_LOAD = ms * COUNTS_PER_MS - 1;
        SYSTICK_VALUE = 0;
        SYSTICK_CTRL = 7;
        __asm volatile ("wfi" ::: "memory");
        SYSTICK_CTRL = 0;
        ICSR = ICSR_CLEAR_SYSTICK;
    }
    event = false;
}

// In the place of the port's: see mps2.mk.
uintptr_t __wrap_mp_hal_stdio_poll(uintptr_t poll_flags) {
    return poll_flags & (input_start == input_end ? MP_STREAM_POLL_WR : MP_STREAM_POLL_RD | MP_STREAM_POLL_WR);
}

int __wrap_uart_rx_chr(void) {
    if (input_start == input_end) {
        mp_event_wait_ms(SYSTICK_MAX_MS);
        return UART_RX_NO_CHAR;
    }
    return input[input_start++];
}

void __wrap_uart_init(void) {
    #if defined(__ARM_FP)
    CPACR |= CPACR_FPU;
    __asm volatile ("dsb\nisb");
    #endif
    __asm volatile ("cpsid i");
    __real_uart_init();
    UART_CTRL |= UART_CTRL_RX_INTERRUPT;
    network_init();
    NVIC_ENABLE = IRQS;
}
