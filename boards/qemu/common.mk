# What the emulated boards share: files of this folder, and sizes for a small microcontroller.
QEMU_DIR := $(abspath $(BOARD_DIR)/../qemu)
vpath %.c $(QEMU_DIR)/..
CFLAGS   += -I$(QEMU_DIR) -DMP_CONFIGFILE='"mpconfigqemu.h"'
LDFLAGS  += $(addprefix -Wl$(comma)--wrap=,uart_init uart_rx_chr mp_hal_stdio_poll)
SRC_C    += qemu/events.c
comma    := ,

UMQTT_OPT_LEVEL ?= z
UMQTT_THREADS   ?= 0
UMQTT_RX_BUFFER ?= 1024
UMQTT_TX_BUFFER ?= 1024
UMQTT_KEPT      ?= 8192
