/* EIP-712: the hashes that nodes sign, and whose signature it is (https://eips.ethereum.org/EIPS/eip-712). */
#ifndef TWOPM_TYPED_DATA_H
#define TWOPM_TYPED_DATA_H

#include "errors.h"
#include "memory.h"

enum { WORD = 32 };

/* The separator of the domain ("twopm-flower", "1", chain id, contract). */
void domain_separator(u64 chain_id, const u8 *contract, u8 *separator);

/* The hash of a type's name and members, as the first word of a statement. */
INLINE void type_hash(const char *type, u64 length, u8 *word) {
    keccak((const u8 *)type, length, word);
}
#define TYPE_HASH(type, word) type_hash(type, sizeof(type) - 1, word)

/* The digest that is signed, of a statement given as words, its type hash first. */
void statement_digest(const u8 *separator, const u8 *words, u64 count, u8 *digest);

/* The address that made a signature `r || s || v` with low s and v 27 or 28. */
u64 recover(const u8 *digest, const u8 *signature, u8 *address);

/* Fails unless `address` made the signature. */
u64 require_signed_by(const u8 *address, const u8 *digest, const u8 *signature);

#endif
