// Preloaded into MicroPython: paints the stack of every thread before it runs, and prints how much of it was used when
// it ends.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define PAINT (0xA5)

typedef struct {
    void *(*routine)(void *);
    void *argument;
} start_t;

static void *painted(void *start_in) {
    start_t start = *(start_t *)start_in;
    free(start_in);
    pthread_attr_t attributes;
    void *lowest;
    size_t size;
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstack(&attributes, &lowest, &size);
    volatile unsigned char *top = (volatile unsigned char *)__builtin_frame_address(0);
    volatile unsigned char *low = lowest;
    // Below this function's own frame, and that of the loop.
    for (volatile unsigned char *at = low; at < top - 512; at++) {
        *at = PAINT;
    }
    void *result = start.routine(start.argument);
    while (*low == PAINT) {
        low++;
    }
    // MicroPython has a printf of its own, which this would call.
    dprintf(1, "stack %zu\n", (size_t)(top - low));
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*routine)(void *), void *argument) {
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    start_t *start = malloc(sizeof(*start));
    *start = (start_t) { routine, argument };
    return real(thread, attributes, painted, start);
}
