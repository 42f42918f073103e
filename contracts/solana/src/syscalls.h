/* What the Solana runtime offers to a program: types, sizes and system calls.
 *
 * The layouts are those of the runtime's C interface: every pointer and length takes 8 bytes.
 * The linker turns each call of a name declared here into a static system call (SIMD-0178).
 */
#ifndef TWOPM_SYSCALLS_H
#define TWOPM_SYSCALLS_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;
typedef signed long i64;

#define INLINE static inline __attribute__((always_inline))

enum { KEY_SIZE = 32, DIGEST_SIZE = 32, ADDRESS_SIZE = 20, SIGNATURE_SIZE = 65 };

struct slice {
    const u8 *start;
    u64 length;
};

struct clock {
    u64 slot;
    i64 epoch_start_timestamp;
    u64 epoch;
    u64 leader_schedule_epoch;
    i64 unix_timestamp;
};

struct rent {
    u64 lamports_per_byte;
    u64 exemption_threshold; /* an IEEE 754 double, as bits */
    u8 burn_percent;
};

struct account_meta {
    const u8 *key;
    u8 writable;
    u8 signer;
};

struct instruction {
    const u8 *program_id;
    const struct account_meta *accounts;
    u64 account_count;
    const u8 *data;
    u64 length;
};

struct account_info {
    const u8 *key;
    u64 *lamports;
    u64 length;
    u8 *data;
    const u8 *owner;
    u64 rent_epoch;
    u8 signer;
    u8 writable;
    u8 executable;
};

struct signer_seeds {
    const struct slice *seeds;
    u64 count;
};

extern u64 sol_keccak256(const struct slice *parts, u64 count, u8 *digest);
extern u64 sol_secp256k1_recover(const u8 *digest, u64 recovery_id, const u8 *signature, u8 *point);
extern u64 sol_create_program_address(const struct slice *seeds, u64 count, const u8 *program_id,
                                      u8 *address);
extern u64 sol_try_find_program_address(const struct slice *seeds, u64 count, const u8 *program_id,
                                        u8 *address, u8 *bump);
extern u64 sol_invoke_signed_c(const struct instruction *instruction,
                               const struct account_info *accounts, u64 account_count,
                               const struct signer_seeds *signers, u64 signer_count);
extern u64 sol_get_clock_sysvar(struct clock *clock);
extern u64 sol_get_rent_sysvar(struct rent *rent);
extern u64 sol_log_data(const struct slice *fields, u64 count);

#endif
