/* publish: the commitments that nodes make to the versions of their datasets. */
#include "event.h"
#include "instructions.h"
#include "typed_data.h"

u64 publish(const struct call *call) {
    TRY(require_shape(call, ADDRESS_SIZE + 2 * DIGEST_SIZE + 12 + SIGNATURE_SIZE, 5));
    const struct account *payer = &call->accounts[0];
    const struct account *account = &call->accounts[3];
    const u8 *address = call->data;
    const u8 *name = address + ADDRESS_SIZE;
    u32 version = load_u32(name + DIGEST_SIZE);
    const u8 *commitment = name + DIGEST_SIZE + 4;
    u64 samples = load_u64(commitment + DIGEST_SIZE);
    const u8 *signature = commitment + DIGEST_SIZE + 8;
    const struct config *config;
    const struct node *node;
    TRY(require_payer(payer));
    TRY(require_config(call, &call->accounts[1], &config));
    TRY(require_node(call, &call->accounts[2], address, &node));
    TRY(require_system_program(&call->accounts[4]));
    REQUIRE(!zero_32(name) && !zero_32(commitment), ZERO_DIGEST);
    REQUIRE(samples != 0, ZERO_SAMPLES);

    struct place place = {{TEXT_SEED("dataset"), {address, ADDRESS_SIZE}, {name, DIGEST_SIZE}},
                          3,
                          sizeof(struct dataset),
                          DATASET,
                          0,
                          0};
    TRY(open_or_create(call, payer, account, &place));
    struct dataset *dataset = (struct dataset *)account->data;
    REQUIRE((u64)version == (u64)dataset->version + 1, WRONG_VERSION);

    u8 words[6 * WORD];
    u8 digest[DIGEST_SIZE];
    TYPE_HASH("DataPublication(address node,bytes32 dataset,uint32 version,bytes32 commitment,"
              "uint64 samples)",
              words);
    word_address(words + WORD, address);
    copy_32(words + 2 * WORD, name);
    word_u64(words + 3 * WORD, version);
    copy_32(words + 4 * WORD, commitment);
    word_u64(words + 5 * WORD, samples);
    statement_digest(config->data_domain, words, 6, digest);
    TRY(require_signed_by(address, digest, signature));

    copy_20(dataset->node, address);
    copy_32(dataset->dataset, name);
    dataset->version = version;
    dataset->samples = samples;
    copy_32(dataset->commitment, commitment);

    struct event event = event_begin(DATA_PUBLISHED);
    event_address(&event, address);
    event_digest(&event, name);
    event_u32(&event, version);
    event_digest(&event, commitment);
    event_u64(&event, samples);
    event_emit(&event);
    return OK;
}
