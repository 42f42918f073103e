/* EIP-712 digests and secp256k1 signatures; see typed_data.h. */
#include "typed_data.h"

/* Half of the order of secp256k1: a larger s is the other form of a signature (EIP-2). */
static const u8 half_order[WORD] = {
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0};

void domain_separator(u64 chain_id, const u8 *contract, u8 *separator) {
    u8 words[5 * WORD];
    TYPE_HASH(
        "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
        words);
    TYPE_HASH("twopm-flower", words + WORD);
    TYPE_HASH("1", words + 2 * WORD);
    word_u64(words + 3 * WORD, chain_id);
    word_address(words + 4 * WORD, contract);
    keccak(words, sizeof(words), separator);
}

void statement_digest(const u8 *separator, const u8 *words, u64 count, u8 *digest) {
    static const u8 prefix[2] = {0x19, 0x01};
    u8 body[WORD];
    keccak(words, count * WORD, body);
    struct slice parts[3] = {{prefix, sizeof(prefix)}, {separator, WORD}, {body, WORD}};
    sol_keccak256(parts, 3, digest);
}

u64 recover(const u8 *digest, const u8 *signature, u8 *address) {
    u8 point[64];
    u8 hash[WORD];
    u8 recovery = signature[64];
    REQUIRE(recovery == 27 || recovery == 28, BAD_SIGNATURE);
    REQUIRE(!larger(signature + WORD, half_order, WORD), BAD_SIGNATURE);
    REQUIRE(sol_secp256k1_recover(digest, recovery - 27, signature, point) == 0, BAD_SIGNATURE);
    keccak(point, sizeof(point), hash);
    copy_20(address, hash + WORD - ADDRESS_SIZE);
    return OK;
}

u64 require_signed_by(const u8 *address, const u8 *digest, const u8 *signature) {
    u8 signer[ADDRESS_SIZE];
    TRY(recover(digest, signature, signer));
    return equal_20(signer, address) ? OK : WRONG_SIGNER;
}
