// What an emulated machine has to offer (mps2.c, virt.c) to what all of them share (events.c).
#ifndef UMQTT_QEMU_BOARD_H
#define UMQTT_QEMU_BOARD_H

#include <stdbool.h>
#include <stdint.h>

// Before anything else.
void board_init(void);
// Time since the start.
uint64_t board_us(void);
// From here on, what arrives ends board_sleep().
void board_clear_interrupts(void);
// Until an interrupt, or for so long.
void board_sleep(uint32_t ms);
#define BOARD_SLEEP_MAX_MS (500)

// lan9118.c: starts the network, with an address from DHCP.
void network_init(void);
// Hands what has arrived to lwIP, and does what lwIP has to do by now; true if anything arrived.
bool network_poll(void);

#endif // UMQTT_QEMU_BOARD_H
