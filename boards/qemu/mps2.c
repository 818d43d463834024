// The MPS2 boards under QEMU.

#include "py/mphal.h"
#include "board.h"

#define REG(address) (*(volatile uint32_t *)(address))

#define COUNTER         REG(0x40028018)
#define COUNTS_PER_MS   (25000)

#define UART_IRQ        (0)
#define UART_CTRL       REG(0x40004008)
#define UART_CTRL_RX_INTERRUPT (1 << 3)
#define UART_INTSTATUS  REG(0x4000400c)
#define UART_INTSTATUS_RX (1 << 1)
#define LAN9118_IRQ     (13)

#define SYSTICK_CTRL    REG(0xe000e010)
#define SYSTICK_LOAD    REG(0xe000e014)
#define SYSTICK_VALUE   REG(0xe000e018)
#define NVIC_ENABLE     REG(0xe000e100)
#define NVIC_CLEAR      REG(0xe000e280)
#define ICSR            REG(0xe000ed04)
#define ICSR_CLEAR_SYSTICK (1 << 25)
#define CPACR           REG(0xe000ed88)
#define CPACR_FPU       (0xf << 20)

#define IRQS            (1 << UART_IRQ | 1 << LAN9118_IRQ)

void board_init(void) {
    #if defined(__ARM_FP)
    CPACR |= CPACR_FPU;
    __asm volatile ("dsb\nisb");
    #endif
    __asm volatile ("cpsid i");
    UART_CTRL |= UART_CTRL_RX_INTERRUPT;
    network_init();
    NVIC_ENABLE = IRQS;
}

uint64_t board_us(void) {
    // It wraps every 171 s; an idle board looks more often.
    static uint32_t high, last;
    uint32_t now = COUNTER;
    high += now < last;
    last = now;
    return ((uint64_t)high << 32 | now) / (COUNTS_PER_MS / 1000);
}

void board_clear_interrupts(void) {
    UART_INTSTATUS = UART_INTSTATUS_RX;
    NVIC_CLEAR = IRQS;
}

void board_sleep(uint32_t ms) {
    SYSTICK_LOAD = ms * COUNTS_PER_MS - 1;
    SYSTICK_VALUE = 0;
    SYSTICK_CTRL = 7;
    __asm volatile ("wfi" ::: "memory");
    SYSTICK_CTRL = 0;
    ICSR = ICSR_CLEAR_SYSTICK;
}

// For lwIP; good enough for port numbers and the like.
uint32_t board_random(void) {
    static uint32_t state = 1;
    state = (state ^ COUNTER) * 1664525 + 1013904223;
    return state >> 16 | state << 16;
}
