// QEMU's machine virt, 32-bit RISC-V: see boards/qemu/board.h.

#include "py/mphal.h"
#include "board.h"

#define REG(address) (*(volatile uint32_t *)(address))

#define MTIMECMP        (0x02004000)
#define MTIME           (0x0200bff8)
#define TICKS_PER_US    (10)

#define UART_INTERRUPTS (*(volatile uint8_t *)0x10000001)
#define UART_RX_INTERRUPT (1)
#define UART_IRQ        (10)

#define PLIC_PRIORITY   REG(0x0c000000 + 4 * UART_IRQ)
#define PLIC_ENABLE     REG(0x0c002000)
#define PLIC_THRESHOLD  REG(0x0c200000)
#define PLIC_CLAIM      REG(0x0c200004)

#define MIE_TIMER_EXTERNAL (1 << 7 | 1 << 11)

static uint64_t ticks(void) {
    uint32_t high, low;
    do {
        high = REG(MTIME + 4);
        low = REG(MTIME);
    } while (high != REG(MTIME + 4));
    return (uint64_t)high << 32 | low;
}

static void set_alarm(uint64_t at) {
    REG(MTIMECMP + 4) = 0xffffffff;
    REG(MTIMECMP) = at;
    REG(MTIMECMP + 4) = at >> 32;
}

void board_init(void) {
    UART_INTERRUPTS = UART_RX_INTERRUPT;
    PLIC_PRIORITY = 1;
    PLIC_ENABLE = 1 << UART_IRQ;
    PLIC_THRESHOLD = 0;
    set_alarm(UINT64_MAX);
    // MIE in mstatus stays off: pending interrupts end WFI and do no more.
    __asm volatile ("csrw mie, %0" :: "r" (MIE_TIMER_EXTERNAL));
}

uint64_t board_us(void) {
    return ticks() / TICKS_PER_US;
}

void board_clear_interrupts(void) {
    uint32_t irq = PLIC_CLAIM;
    if (irq != 0) {
        PLIC_CLAIM = irq;
    }
}

void board_sleep(uint32_t ms) {
    set_alarm(ticks() + (uint64_t)ms * 1000 * TICKS_PER_US);
    __asm volatile ("wfi" ::: "memory");
    set_alarm(UINT64_MAX);
}
