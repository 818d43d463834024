#include "../unix-gil/mpconfigvariant.h"

// As where nothing can wait for a socket: port.c has to look at it now and then.
#define UMQTT_LINUX (0)
