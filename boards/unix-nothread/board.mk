# The unix port without threads, as small microcontrollers have it.
PORT      = unix
PROG      = micropython
PORT_ARGS = VARIANT_DIR=$(BOARD_DIR)
NEEDS     = pkgconf libffi-dev $(if $(wildcard $(MPY_DIR)/lib/mbedtls/library),,libmbedtls-dev)
