// lwIP's sizes: a window that fits the network chip's FIFO (10 KiB), and memory for a few full send buffers, so that a
// write finds room as long as the send buffer has some.
#ifndef UMQTT_QEMU_LWIPOPTS_H
#define UMQTT_QEMU_LWIPOPTS_H

#include <stdint.h>

#define LWIP_IPV6                       (0)
#define LWIP_NETIF_EXT_STATUS_CALLBACK  (1)

#define TCP_MSS                         (1460)
#define TCP_WND                         (4 * TCP_MSS)
#define TCP_SND_BUF                     (4 * TCP_MSS)
#define MEMP_NUM_TCP_SEG                (48)
#define MEM_SIZE                        (32000)
// Many small ones, lest short packets that wait unread in one socket leave no room for another's.
#define PBUF_POOL_BUFSIZE               (256)
#define PBUF_POOL_SIZE                  (128)
// A closed socket may linger for 10 s.
#define MEMP_NUM_TCP_PCB                (32)
// Longer than any caller's patience.
#define TCP_SYNMAXRTX                   (8)

uint32_t board_random(void);
// Even, because lwIP 2.2.1, when its first random port is 65535, makes 0 of the next one, and the connection fails.
#define LWIP_RAND() (board_random() & ~1u)

#include "extmod/lwip-include/lwipopts_common.h"

#endif // UMQTT_QEMU_LWIPOPTS_H
