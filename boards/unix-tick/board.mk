# The unix port with a GIL, and with nothing that can wait for a socket: the threading and the waiting of QuecPython and the
# ESP32.
include boards/linux/common.mk
