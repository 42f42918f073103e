/* Reading and writing bytes: integers, keys, digests, addresses.
 *
 * The virtual machine allows unaligned access, and instruction data is unaligned by nature, so
 * integers are loaded and stored whole. Sizes are constants: no loop depends on what is read.
 */
#ifndef TWOPM_MEMORY_H
#define TWOPM_MEMORY_H

#include "syscalls.h"

typedef u64 __attribute__((may_alias)) u64_alias;
typedef u32 __attribute__((may_alias)) u32_alias;
typedef u16 __attribute__((may_alias)) u16_alias;

INLINE u64 load_u64(const u8 *from) { return *(const u64_alias *)from; }
INLINE u32 load_u32(const u8 *from) { return *(const u32_alias *)from; }
INLINE u16 load_u16(const u8 *from) { return *(const u16_alias *)from; }
INLINE void store_u64(u8 *to, u64 value) { *(u64_alias *)to = value; }
INLINE void store_u32(u8 *to, u32 value) { *(u32_alias *)to = value; }
INLINE void store_u16(u8 *to, u16 value) { *(u16_alias *)to = value; }

INLINE void copy_32(u8 *to, const u8 *from) {
    store_u64(to, load_u64(from));
    store_u64(to + 8, load_u64(from + 8));
    store_u64(to + 16, load_u64(from + 16));
    store_u64(to + 24, load_u64(from + 24));
}

INLINE void copy_20(u8 *to, const u8 *from) {
    store_u64(to, load_u64(from));
    store_u64(to + 8, load_u64(from + 8));
    store_u32(to + 16, load_u32(from + 16));
}

INLINE int equal_32(const u8 *left, const u8 *right) {
    return load_u64(left) == load_u64(right) && load_u64(left + 8) == load_u64(right + 8) &&
           load_u64(left + 16) == load_u64(right + 16) &&
           load_u64(left + 24) == load_u64(right + 24);
}

INLINE int equal_20(const u8 *left, const u8 *right) {
    return load_u64(left) == load_u64(right) && load_u64(left + 8) == load_u64(right + 8) &&
           load_u32(left + 16) == load_u32(right + 16);
}

INLINE int zero_32(const u8 *bytes) {
    return (load_u64(bytes) | load_u64(bytes + 8) | load_u64(bytes + 16) | load_u64(bytes + 24)) ==
           0;
}

INLINE int zero_20(const u8 *bytes) {
    return (load_u64(bytes) | load_u64(bytes + 8) | load_u32(bytes + 16)) == 0;
}

/* Whether the first is the larger, both read as big-endian numbers of `size` bytes. */
INLINE int larger(const u8 *left, const u8 *right, u64 size) {
    for (u64 i = 0; i < size; ++i) {
        if (left[i] != right[i]) {
            return left[i] > right[i];
        }
    }
    return 0;
}

INLINE u64 big_endian(u64 value) { return __builtin_bswap64(value); }

/* A 32-byte word of the Ethereum ABI: a number, or an address, filled with zeros on the left. */
INLINE void word_u64(u8 *to, u64 value) {
    store_u64(to, 0);
    store_u64(to + 8, 0);
    store_u64(to + 16, 0);
    store_u64(to + 24, big_endian(value));
}

INLINE void word_address(u8 *to, const u8 *address) {
    store_u64(to, 0);
    store_u32(to + 8, 0);
    copy_20(to + 12, address);
}

INLINE void keccak(const u8 *bytes, u64 length, u8 *digest) {
    struct slice part = {bytes, length};
    sol_keccak256(&part, 1, digest);
}

#endif
