/* join: a node takes part in an open task, by its own signature. */
#include "event.h"
#include "instructions.h"
#include "typed_data.h"

/* What a node agrees to, as the instruction carries it. */
struct membership {
    const u8 *node;
    u64 samples;
    const u8 *data_commitment;
    const u8 *sealing_key;
    const u8 *signature;
};

static struct membership read_membership(const u8 *data) {
    const u8 *digests = data + ADDRESS_SIZE + 8;
    return (struct membership){data, load_u64(data + ADDRESS_SIZE), digests, digests + DIGEST_SIZE,
                               digests + 2 * DIGEST_SIZE};
}

/* The roster digest with another member. */
static void next_roster(const u8 *previous, const struct membership *membership, u8 *digest) {
    u8 words[5 * WORD];
    copy_32(words, previous);
    word_address(words + WORD, membership->node);
    word_u64(words + 2 * WORD, membership->samples);
    copy_32(words + 3 * WORD, membership->data_commitment);
    copy_32(words + 4 * WORD, membership->sealing_key);
    keccak(words, sizeof(words), digest);
}

/* The node is registered with this key. */
static u64 require_sealing_key(const struct call *call, const struct account *account,
                               const struct membership *membership) {
    const struct node *node;
    u64 error = require_node(call, account, membership->node, &node);
    if (error == NOT_REGISTERED) {
        return SEALING_KEY_MISMATCH;
    }
    TRY(error);
    return equal_32(node->sealing_key, membership->sealing_key) ? OK : SEALING_KEY_MISMATCH;
}

static u64 require_statement(const u8 *separator, const struct task *task,
                             const struct membership *membership) {
    u8 words[7 * WORD];
    u8 digest[DIGEST_SIZE];
    TYPE_HASH("Membership(bytes32 taskId,bytes32 termsDigest,address node,uint64 samples,"
              "bytes32 dataCommitment,bytes32 sealingKey)",
              words);
    copy_32(words + WORD, task->task_id);
    copy_32(words + 2 * WORD, task->terms_digest);
    word_address(words + 3 * WORD, membership->node);
    word_u64(words + 4 * WORD, membership->samples);
    copy_32(words + 5 * WORD, membership->data_commitment);
    copy_32(words + 6 * WORD, membership->sealing_key);
    statement_digest(separator, words, 7, digest);
    return require_signed_by(membership->node, digest, membership->signature);
}

u64 join(const struct call *call) {
    TRY(require_shape(call, ADDRESS_SIZE + 8 + 2 * DIGEST_SIZE + SIGNATURE_SIZE, 6));
    const struct account *payer = &call->accounts[0];
    const struct account *account = &call->accounts[4];
    struct membership membership = read_membership(call->data);
    const struct config *config;
    struct task *task;
    TRY(require_payer(payer));
    TRY(require_config(call, &call->accounts[1], &config));
    TRY(require_task(call, payer, &call->accounts[2], &task));
    TRY(require_writable(&call->accounts[2]));
    TRY(require_system_program(&call->accounts[5]));
    REQUIRE(task->state == OPEN, WRONG_STATE);

    struct place place = {{TEXT_SEED("member"),
                           {task->task_id, DIGEST_SIZE},
                           {membership.node, ADDRESS_SIZE}},
                          3,
                          sizeof(struct member),
                          MEMBER,
                          0,
                          0};
    TRY(open_or_create(call, payer, account, &place));
    REQUIRE(place.created, ALREADY_MEMBER);
    REQUIRE(membership.samples != 0 && membership.samples <= task->max_samples,
            SAMPLES_OUT_OF_RANGE);
    REQUIRE(!zero_32(membership.data_commitment), ZERO_DIGEST);
    TRY(require_sealing_key(call, &call->accounts[3], &membership));
    TRY(require_statement(config->task_domain, task, &membership));
    REQUIRE(task->members < MAX_MEMBERS, TOO_MANY_MEMBERS);

    u8 roster[DIGEST_SIZE];
    next_roster(task->roster_digest, &membership, roster);
    struct member *member = (struct member *)account->data;
    copy_32(member->task_id, task->task_id);
    copy_20(member->node, membership.node);
    member->index = task->members;
    member->samples = membership.samples;
    copy_32(member->data_commitment, membership.data_commitment);
    copy_32(member->sealing_key, membership.sealing_key);
    task->members += 1;
    copy_32(task->roster_digest, roster);

    struct event event = event_begin(MEMBER_JOINED);
    event_digest(&event, task->task_id);
    event_address(&event, membership.node);
    event_u32(&event, member->index);
    event_u64(&event, membership.samples);
    event_digest(&event, membership.data_commitment);
    event_digest(&event, membership.sealing_key);
    event_digest(&event, roster);
    event_emit(&event);
    return OK;
}
