# The unix port with a GIL, the threading of QuecPython and the ESP32.
TEST_NEXT = yes
include boards/linux/common.mk
