// lwIP's network interface over the LAN9118 of the MPS2 boards, without a handler of interrupts: network_poll() is called
// whenever the script waits, and now and then while it computes.

#include "py/mphal.h"
#include "lwip/dhcp.h"
#include "lwip/etharp.h"
#include "lwip/init.h"
#include "lwip/netif.h"
#include "lwip/timeouts.h"
#include "netif/ethernet.h"
#include "board.h"

#define LAN9118(offset) (*(volatile uint32_t *)(0x40200000 + (offset)))

#define RX_DATA         LAN9118(0x00)
#define TX_DATA         LAN9118(0x20)
#define TX_FIRST_LAST   (3 << 12)
#define RX_STATUS       LAN9118(0x40)
#define RX_STATUS_ERROR (1 << 15)
#define TX_STATUS       LAN9118(0x48)
#define IRQ_CFG         LAN9118(0x54)
#define IRQ_CFG_HIGH    (1 << 8 | 1 << 4 | 1 << 0)
#define INT_STS         LAN9118(0x58)
#define INT_EN          LAN9118(0x5c)
#define INT_RX          (1 << 3)
#define FIFO_INT        LAN9118(0x68)
#define TX_CFG          LAN9118(0x70)
#define TX_CFG_ON       (1 << 1)
#define RX_FIFO_INF     LAN9118(0x7c)
#define TX_FIFO_INF     LAN9118(0x80)
#define FIFO_STATUSES(inf) ((inf) >> 16 & 0xff)
#define MAC_CMD         LAN9118(0xa4)
#define MAC_CMD_BUSY    (1u << 31)
#define MAC_CMD_READ    (1 << 30)
#define MAC_DATA        LAN9118(0xa8)
#define MAC_CR          (1)
#define MAC_CR_ON       (1 << 20 | 1 << 3 | 1 << 2)
#define MAC_ADDRH       (2)
#define MAC_ADDRL       (3)

#define CRC_LEN (4)

static struct netif netif;
// One packet; words, as the FIFOs have it.
static uint32_t packet[(1514 + CRC_LEN + 3) / 4];

static uint32_t mac_read(uint32_t reg) {
    MAC_CMD = MAC_CMD_BUSY | MAC_CMD_READ | reg;
    while (MAC_CMD & MAC_CMD_BUSY) {
    }
    return MAC_DATA;
}

static void mac_write(uint32_t reg, uint32_t value) {
    MAC_DATA = value;
    MAC_CMD = MAC_CMD_BUSY | reg;
    while (MAC_CMD & MAC_CMD_BUSY) {
    }
}

static err_t send(struct netif *interface, struct pbuf *p) {
    (void)interface;
    if (p->tot_len > sizeof(packet) - CRC_LEN) {
        return ERR_BUF;
    }
    while (FIFO_STATUSES(TX_FIFO_INF) > 0) {
        (void)TX_STATUS;
    }
    pbuf_copy_partial(p, packet, p->tot_len, 0);
    TX_DATA = TX_FIRST_LAST | p->tot_len;
    TX_DATA = p->tot_len;
    for (size_t i = 0; i < (p->tot_len + 3u) / 4; ++i) {
        TX_DATA = packet[i];
    }
    return ERR_OK;
}

static void receive(void) {
    uint32_t status = RX_STATUS;
    size_t len = status >> 16 & 0x3fff;
    for (size_t i = 0; i < (len + 3) / 4; ++i) {
        uint32_t word = RX_DATA;
        if (i < MP_ARRAY_SIZE(packet)) {
            packet[i] = word;
        }
    }
    if (status & RX_STATUS_ERROR || len <= CRC_LEN || len > sizeof(packet)) {
        return;
    }
    // Without memory it is lost, like any packet may be.
    struct pbuf *p = pbuf_alloc(PBUF_RAW, len - CRC_LEN, PBUF_POOL);
    if (p != NULL && (pbuf_take(p, packet, len - CRC_LEN) != ERR_OK || netif.input(p, &netif) != ERR_OK)) {
        pbuf_free(p);
    }
}

bool network_poll(void) {
    INT_STS = INT_RX;
    bool any = false;
    while (FIFO_STATUSES(RX_FIFO_INF) > 0) {
        receive();
        any = true;
    }
    sys_check_timeouts();
    return any;
}

static err_t interface_init(struct netif *interface) {
    // QEMU has put an address there.
    uint32_t low = mac_read(MAC_ADDRL), high = mac_read(MAC_ADDRH);
    memcpy(interface->hwaddr, &low, 4);
    memcpy(interface->hwaddr + 4, &high, 2);
    interface->hwaddr_len = ETH_HWADDR_LEN;
    interface->name[0] = 'e';
    interface->name[1] = 'n';
    interface->mtu = 1500;
    interface->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_ETHARP | NETIF_FLAG_ETHERNET | NETIF_FLAG_IGMP;
    interface->output = etharp_output;
    interface->linkoutput = send;
    return ERR_OK;
}

void network_init(void) {
    lwip_init();
    IRQ_CFG = IRQ_CFG_HIGH;
    FIFO_INT = 0;
    INT_EN = INT_RX;
    TX_CFG = TX_CFG_ON;
    mac_write(MAC_CR, MAC_CR_ON);
    netif_add(&netif, NULL, NULL, NULL, NULL, interface_init, ethernet_input);
    netif_set_default(&netif);
    netif_set_up(&netif);
    netif_set_link_up(&netif);
    dhcp_start(&netif);
}
