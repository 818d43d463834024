# What the board.mk of a board that is built with CMake has in common.
MODULES_FILE = /umqtt/micropython.cmake
RUNS      =
BUDGET    = client=1024 stack=3072

UMQTT_OPT_LEVEL ?= z
UMQTT_THREADS   ?= 1
UMQTT_RX_BUFFER ?= 2048
UMQTT_TX_BUFFER ?= 2048
UMQTT_KEPT      ?= 16384
