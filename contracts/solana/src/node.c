/* register and depart: which nodes exist, and the key each can be written to under seal. */
#include "event.h"
#include "instructions.h"
#include "typed_data.h"

INLINE struct place node_place(const u8 *address) {
    return (struct place){
        {TEXT_SEED("node"), {address, ADDRESS_SIZE}}, 2, sizeof(struct node), NODE, 0, 0};
}

static u64 require_in_time(u64 deadline) {
    struct clock clock;
    REQUIRE(sol_get_clock_sysvar(&clock) == 0, DEADLINE_PASSED);
    return (u64)clock.unix_timestamp <= deadline ? OK : DEADLINE_PASSED;
}

u64 require_node(const struct call *call, const struct account *account, const u8 *address,
                 const struct node **node) {
    struct place place = node_place(address);
    if (is_absent(account)) {
        TRY(require_free_at(call, account, &place));
        return NOT_REGISTERED;
    }
    TRY(require_at(call, account, &place));
    *node = (const struct node *)account->data;
    return zero_32((*node)->sealing_key) ? NOT_REGISTERED : OK;
}

u64 register_node(const struct call *call) {
    TRY(require_shape(call, ADDRESS_SIZE + KEY_SIZE + 8 + SIGNATURE_SIZE, 4));
    const struct account *payer = &call->accounts[0];
    const struct account *account = &call->accounts[2];
    const u8 *address = call->data;
    const u8 *sealing_key = address + ADDRESS_SIZE;
    u64 deadline = load_u64(sealing_key + KEY_SIZE);
    const u8 *signature = sealing_key + KEY_SIZE + 8;
    const struct config *config;
    TRY(require_payer(payer));
    TRY(require_config(call, &call->accounts[1], &config));
    TRY(require_system_program(&call->accounts[3]));
    REQUIRE(!zero_32(sealing_key), ZERO_SEALING_KEY);
    TRY(require_in_time(deadline));

    struct place place = node_place(address);
    TRY(open_or_create(call, payer, account, &place));
    struct node *node = (struct node *)account->data;
    u64 nonce = node->nonce;
    REQUIRE(nonce != ~0UL, OVERFLOW);

    u8 words[5 * WORD];
    u8 digest[DIGEST_SIZE];
    TYPE_HASH("Registration(address node,bytes32 sealingKey,uint256 nonce,uint256 deadline)",
              words);
    word_address(words + WORD, address);
    copy_32(words + 2 * WORD, sealing_key);
    word_u64(words + 3 * WORD, nonce);
    word_u64(words + 4 * WORD, deadline);
    statement_digest(config->node_domain, words, 5, digest);
    TRY(require_signed_by(address, digest, signature));

    copy_20(node->node, address);
    node->nonce = nonce + 1;
    copy_32(node->sealing_key, sealing_key);

    struct event event = event_begin(NODE_REGISTERED);
    event_address(&event, address);
    event_digest(&event, sealing_key);
    event_u64(&event, nonce);
    event_emit(&event);
    return OK;
}

u64 depart(const struct call *call) {
    TRY(require_shape(call, ADDRESS_SIZE + 8 + SIGNATURE_SIZE, 3));
    const struct account *account = &call->accounts[2];
    const u8 *address = call->data;
    u64 deadline = load_u64(address + ADDRESS_SIZE);
    const u8 *signature = address + ADDRESS_SIZE + 8;
    const struct config *config;
    const struct node *registered;
    TRY(require_signer(&call->accounts[0]));
    TRY(require_config(call, &call->accounts[1], &config));
    TRY(require_writable(account));
    TRY(require_node(call, account, address, &registered));
    TRY(require_in_time(deadline));
    struct node *node = (struct node *)account->data;
    u64 nonce = node->nonce;
    REQUIRE(nonce != ~0UL, OVERFLOW);

    u8 words[4 * WORD];
    u8 digest[DIGEST_SIZE];
    TYPE_HASH("Departure(address node,uint256 nonce,uint256 deadline)", words);
    word_address(words + WORD, address);
    word_u64(words + 2 * WORD, nonce);
    word_u64(words + 3 * WORD, deadline);
    statement_digest(config->node_domain, words, 4, digest);
    TRY(require_signed_by(address, digest, signature));

    node->nonce = nonce + 1;
    for (u64 i = 0; i < KEY_SIZE; i += 8) {
        store_u64(node->sealing_key + i, 0);
    }

    struct event event = event_begin(NODE_LEFT);
    event_address(&event, address);
    event_u64(&event, nonce);
    event_emit(&event);
    return OK;
}
