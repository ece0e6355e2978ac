// SPDX-License-Identifier: MIT
#include "drivers/block/nvme_namespace_watch.hpp"

#include "drivers/block/nvme_identify.hpp"
#include "vmm/base/text.hpp"

namespace hv::block::nvme {

void NamespaceWatch::begin(Step step, const Submission& command) {
    step_ = step;
    admin_.begin_command(command);
}

void NamespaceWatch::start() {
    // [nvme2 5.27.1.8 Asynchronous Event Configuration (Feature Identifier 0Bh)]
    Submission command{};
    command.opcode = kSetFeatures;
    command.cdw10 = kAsynchronousEvents;
    command.cdw11 = static_cast<std::uint32_t>(NamespaceNotices::make(1));
    begin(Step::configuring, command);
}

Expected<std::optional<NamespaceWatch::Identified>> NamespaceWatch::poll(std::span<const std::uint32_t> ids) {
    switch (step_) {
    case Step::off: return std::nullopt;
    case Step::listening: hear(); return std::nullopt;
    case Step::between: go_on(ids); return std::nullopt;
    case Step::configuring:
    case Step::clearing:
    case Step::identifying: break;
    }
    const auto answer = admin_.poll_command();
    if (!answer)
        return std::nullopt;
    if (!*answer && answer->error() == Error::timed_out) {
        stop();
        return Unexpected{Error::timed_out};
    }
    if (step_ == Step::identifying) {
        step_ = Step::between;
        return Identified{unit_++, answer->has_value()};
    }
    if (!*answer) {
        stop();  // it does not tell, for a reason that the log has
        return std::nullopt;
    }
    // What changes from now on is told again, what changed before is looked at.
    admin_.await_event();
    unit_ = 0;
    step_ = Step::between;
    return std::nullopt;
}

void NamespaceWatch::go_on(std::span<const std::uint32_t> ids) {
    if (unit_ < ids.size())
        return begin(Step::identifying, identify(kIdentifyNamespace, ids[unit_], admin_.data().address()));
    step_ = Step::listening;
    hear();  // there may have been something meanwhile
}

void NamespaceWatch::hear() {
    const auto event = admin_.poll_event();
    if (!event)
        return;
    if (!*event)
        return stop();
    const auto type = static_cast<std::uint32_t>(Event::Type::get(**event));
    const auto information = static_cast<std::uint32_t>(Event::Information::get(**event));
    if (type == Event::kNotice && information == Event::kNamespacesChanged) {
        // Read, the notice may come again.
        Submission command{};
        command.opcode = kGetLogPage;
        command.namespace_id = kAllNamespaces;
        command.prp1 = admin_.data().address().raw;
        command.cdw10 = kChangedNamespaces;
        return begin(Step::clearing, command);
    }
    if (event_limit_.admit())
        log::warning(log::Topic::block, "%.*s: it reports an event of type %u, 0x%x", width(admin_.name()),
                     admin_.name().data(), type, information);
    admin_.await_event();
}

}  // namespace hv::block::nvme
