/* initialise: which chain and registries the statements of this program's nodes are for. */
#include "event.h"
#include "instructions.h"
#include "typed_data.h"

u64 initialise(const struct call *call) {
    TRY(require_shape(call, 8 + 3 * ADDRESS_SIZE, 3));
    const struct account *payer = &call->accounts[0];
    const struct account *account = &call->accounts[1];
    u64 chain_id = load_u64(call->data);
    const u8 *registries = call->data + 8;
    TRY(require_payer(payer));
    TRY(require_system_program(&call->accounts[2]));
    REQUIRE(chain_id != 0 && chain_id >> 53 == 0, BAD_CONFIG);
    for (u64 i = 0; i < 3; ++i) {
        REQUIRE(!zero_20(registries + i * ADDRESS_SIZE), BAD_CONFIG);
    }

    struct place place = config_place();
    TRY(open_or_create(call, payer, account, &place));
    REQUIRE(place.created, ALREADY_INITIALISED);

    struct config *config = (struct config *)account->data;
    config->chain_id = chain_id;
    copy_20(config->node_registry, registries);
    copy_20(config->task_registry, registries + ADDRESS_SIZE);
    copy_20(config->data_registry, registries + 2 * ADDRESS_SIZE);
    domain_separator(chain_id, config->node_registry, config->node_domain);
    domain_separator(chain_id, config->task_registry, config->task_domain);
    domain_separator(chain_id, config->data_registry, config->data_domain);

    struct event event = event_begin(INITIALISED);
    event_u64(&event, chain_id);
    event_address(&event, config->node_registry);
    event_address(&event, config->task_registry);
    event_address(&event, config->data_registry);
    event_emit(&event);
    return OK;
}
