/* Ends what a target header began; GCC's target lasts to the end of the unit by itself. */
#if defined(__clang__)
#pragma clang attribute pop
#endif
