/* The fields of each account: docs/solana.md, "Accounts".
 *
 * The compiler checks the lengths and offsets, so that this file cannot drift from that page
 * unnoticed. Every field is aligned to its size and padding is named.
 */
#ifndef TWOPM_LAYOUT_H
#define TWOPM_LAYOUT_H

#include "syscalls.h"

enum { LAYOUT_VERSION = 1, MAX_MEMBERS = 8192, MAX_REASON = 256, MAX_SIGNATURES = 16 };

enum kind {
    CONFIG = 1,
    NODE = 2,
    DATASET = 3,
    COORDINATOR = 4,
    TASK = 5,
    MEMBER = 6,
    TALLY = 7,
    ANCHOR = 8,
};

enum state { OPEN = 1, RUNNING = 2, FINALISED = 3, CANCELLED = 4 };

struct header {
    u8 kind;
    u8 version;
    u8 bump;
    u8 zero[5];
};

struct config {
    struct header header;
    u64 chain_id;
    u8 node_registry[ADDRESS_SIZE];
    u8 task_registry[ADDRESS_SIZE];
    u8 data_registry[ADDRESS_SIZE];
    u8 zero[4];
    u8 node_domain[DIGEST_SIZE];
    u8 task_domain[DIGEST_SIZE];
    u8 data_domain[DIGEST_SIZE];
};

struct node {
    struct header header;
    u8 node[ADDRESS_SIZE];
    u8 zero[4];
    u64 nonce;
    u8 sealing_key[KEY_SIZE];
};

struct dataset {
    struct header header;
    u8 node[ADDRESS_SIZE];
    u8 zero[4];
    u8 dataset[DIGEST_SIZE];
    u32 version;
    u8 more_zero[4];
    u64 samples;
    u8 commitment[DIGEST_SIZE];
};

struct coordinator {
    struct header header;
    u8 key[KEY_SIZE];
    u64 count;
};

struct task {
    struct header header;
    u8 task_id[DIGEST_SIZE];
    u8 coordinator[KEY_SIZE];
    u8 terms_digest[DIGEST_SIZE];
    u8 roster_digest[DIGEST_SIZE];
    u8 head[DIGEST_SIZE];
    u8 model_digest[DIGEST_SIZE];
    u8 previous_head[DIGEST_SIZE];
    u64 max_samples;
    u32 rounds;
    u32 last_round;
    u32 last_attempt;
    u32 members;
    u16 min_contributors;
    u16 quorum;
    u8 state;
    u8 zero[3];
};

struct member {
    struct header header;
    u8 task_id[DIGEST_SIZE];
    u8 node[ADDRESS_SIZE];
    u32 index;
    u64 samples;
    u8 data_commitment[DIGEST_SIZE];
    u8 sealing_key[KEY_SIZE];
};

struct tally {
    struct header header;
    u8 statement_digest[DIGEST_SIZE];
    u8 task_id[DIGEST_SIZE];
    u8 head[DIGEST_SIZE];
    u8 manifest_digest[DIGEST_SIZE];
    u8 model_digest[DIGEST_SIZE];
    u8 metrics_digest[DIGEST_SIZE];
    u32 round;
    u32 signers;
    u8 bitmap[];
};

struct anchor {
    struct header header;
    u8 issuer[KEY_SIZE];
    u8 root[DIGEST_SIZE];
    u64 slot;
    i64 time;
    u32 count;
    u8 zero[4];
};

_Static_assert(sizeof(struct config) == 176, "config");
_Static_assert(sizeof(struct node) == 72, "node");
_Static_assert(sizeof(struct dataset) == 112, "dataset");
_Static_assert(sizeof(struct coordinator) == 48, "coordinator");
_Static_assert(sizeof(struct task) == 264, "task");
_Static_assert(__builtin_offsetof(struct task, state) == 260, "task.state");
_Static_assert(sizeof(struct member) == 136, "member");
_Static_assert(sizeof(struct tally) == 208, "tally");
_Static_assert(sizeof(struct anchor) == 96, "anchor");

/* Bytes of a tally for so many members: whole words of 64 members. */
INLINE u64 tally_length(u32 members) {
    return sizeof(struct tally) + ((u64)members + 63) / 64 * 8;
}

#endif
