#include "variants/standard/mpconfigvariant.h"
