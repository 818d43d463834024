// What the files of the MPS2 boards have of each other.
#ifndef UMQTT_QEMU_BOARD_H
#define UMQTT_QEMU_BOARD_H

#include <stdbool.h>
#include <stdint.h>

// lan9118.c: starts the network, with an address from DHCP.
void network_init(void);
// Hands what has arrived to lwIP, and does what lwIP has to do by now; true if anything arrived.
bool network_poll(void);

#define LAN9118_IRQ (13)

#endif // UMQTT_QEMU_BOARD_H
