/* A statement for each register of a batch, with a constant index: arrays of vectors that are only ever indexed by constants live in
 * registers, which a loop would not promise. */
#ifndef CITYCARD_EACH_H
#define CITYCARD_EACH_H

#define EACH_AT(i, index, ...)                                                                                                           \
    {                                                                                                                                    \
        enum { i = index };                                                                                                              \
        __VA_ARGS__;                                                                                                                     \
    }
#define EACH1(i, ...) EACH_AT(i, 0, __VA_ARGS__)
#define EACH2(i, ...) EACH_AT(i, 0, __VA_ARGS__) EACH_AT(i, 1, __VA_ARGS__)
#define EACH4(i, ...) EACH2(i, __VA_ARGS__) EACH_AT(i, 2, __VA_ARGS__) EACH_AT(i, 3, __VA_ARGS__)
#define EACH8(i, ...)                                                                                                                    \
    EACH4(i, __VA_ARGS__)                                                                                                                \
    EACH_AT(i, 4, __VA_ARGS__) EACH_AT(i, 5, __VA_ARGS__) EACH_AT(i, 6, __VA_ARGS__) EACH_AT(i, 7, __VA_ARGS__)

#endif
