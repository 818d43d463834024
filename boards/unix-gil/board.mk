# The unix port with a GIL, the threading of QuecPython and the ESP32.
PORT      = unix
PROG      = micropython
PORT_ARGS = VARIANT_DIR=$(BOARD_DIR)
NEEDS     = pkgconf libffi-dev $(if $(wildcard $(MPY_DIR)/lib/mbedtls/library),,libmbedtls-dev)
