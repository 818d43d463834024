# The unix port without threads, as small microcontrollers have it.
include boards/linux/common.mk
