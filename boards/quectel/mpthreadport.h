// QuecPython's mutexes: handles of the operating system's, to be deleted, and 0 is success. compat.h knows them by this name.
#define QPY_WAIT_FOREVER (0xffffffff)

typedef unsigned int mp_thread_mutex_t;

void mp_thread_mutex_del(mp_thread_mutex_t *mutex);
