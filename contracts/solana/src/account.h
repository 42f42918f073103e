/* The accounts of a call: what was handed in, and the checks without which none is touched. */
#ifndef TWOPM_ACCOUNT_H
#define TWOPM_ACCOUNT_H

#include "errors.h"
#include "layout.h"
#include "memory.h"

/* Three accounts and one for each signature is the longest list that an instruction takes. */
enum { MAX_ACCOUNTS = 3 + MAX_SIGNATURES, MAX_SEEDS = 3 };

struct account {
    const u8 *key;
    const u8 *owner;
    u64 *lamports;
    u8 *data;
    u64 rent_epoch;
    u8 signer;
    u8 writable;
    u8 executable;
};

struct call {
    const u8 *program_id;
    const u8 *data; /* the instruction's data, after the tag */
    u64 length;
    u64 account_count;
    struct account accounts[MAX_ACCOUNTS];
};

/* Where an account of ours stands and what it is: its seeds with room for the bump, which the
 * functions below fill in together with `bump` and `created`. */
struct place {
    struct slice seeds[MAX_SEEDS + 1];
    u64 seed_count;
    u64 length;
    u8 kind;
    u8 bump;
    u8 created;
};

INLINE struct slice text_seed(const char *text, u64 length) {
    return (struct slice){(const u8 *)text, length};
}
#define TEXT_SEED(text) text_seed(text, sizeof(text) - 1)

/* Reads the runtime's serialised input; an account that is named twice is the same account twice. */
u64 read_call(u8 *input, struct call *call);

/* Exactly these lengths of data and list of accounts. */
u64 require_shape(const struct call *call, u64 length, u64 account_count);

u64 require_signer(const struct account *account);
u64 require_payer(const struct account *account);
u64 require_system_program(const struct account *account);

/* Whether nothing was ever created at an account's address. */
int is_absent(const struct account *account);

/* An account of this program, of this kind, of this length (tallies: at least). */
u64 require_kind(const struct call *call, const struct account *account, u8 kind, u64 length);

/* An account of ours at its place: owner, kind, length, and the address of its seeds and bump. */
u64 require_at(const struct call *call, const struct account *account, struct place *place);

/* Nothing exists yet at the address that the seeds give with the canonical bump. */
u64 require_free_at(const struct call *call, const struct account *account, struct place *place);

/* Creates the account at its free place; the payer pays its rent. */
u64 create(const struct call *call, const struct account *payer, const struct account *account,
           struct place *place);

/* Checks the account at its place, or creates it there; `place->created` says which. */
u64 open_or_create(const struct call *call, const struct account *payer,
                   const struct account *account, struct place *place);

u64 require_writable(const struct account *account);

/* Empties an account, gives its lamports to another and hands it back to the system program. */
u64 close(const struct account *account, const struct account *receiver);

INLINE struct place config_place(void) {
    return (struct place){{TEXT_SEED("config")}, 1, sizeof(struct config), CONFIG, 0, 0};
}

/* The config, checked. */
u64 require_config(const struct call *call, const struct account *account,
                   const struct config **config);

INLINE u64 account_length(const struct account *account) { return load_u64(account->data - 8); }

#endif
