// lwIP's view of the compiler.
#ifndef UMQTT_QEMU_ARCH_CC_H
#define UMQTT_QEMU_ARCH_CC_H

#define LWIP_PLATFORM_DIAG(x)
#define LWIP_PLATFORM_ASSERT(x)
#define LWIP_NO_CTYPE_H (1)

#endif // UMQTT_QEMU_ARCH_CC_H
