// SPDX-License-Identifier: MIT
// Learns from an NVMe controller that its namespaces have changed, in steps none of which waits: the
// controller's notice, the log that takes it back, then what each namespace in use is now. New ones are not
// looked for.
// [nvme2 5.2 Asynchronous Event Request command] [nvme2 5.16.1.5 Changed Namespace List (Log Identifier 04h)]
#pragma once

#include "drivers/block/nvme_admin.hpp"
#include "drivers/block/nvme_defs.hpp"
#include "vmm/base/expected.hpp"
#include "vmm/base/log.hpp"

#include <cstdint>
#include <optional>
#include <span>

namespace hv::block::nvme {

class NamespaceWatch {
public:
    /// Outlives the watch, and takes commands from it alone from start() to the next reset.
    explicit NamespaceWatch(Admin& admin) : admin_{admin} {}

    /// After each reset: asks for notices. Whatever changed before is lost, so all namespaces are looked at
    /// first.
    void start();

    struct Identified {
        unsigned unit;   ///< index into `ids`
        bool succeeded;  ///< Admin::data() has what the namespace is, until the next step
    };
    /// Goes a step on; `ids` are the namespaces in use. Error::timed_out, once: the controller does not
    /// answer.
    Expected<std::optional<Identified>> poll(std::span<const std::uint32_t> ids);
    /// Whether the next step is due soon: it does not wait for a notice.
    [[nodiscard]] bool hurries() const { return step_ != Step::off && step_ != Step::listening; }

private:
    enum class Step : std::uint8_t { off, configuring, listening, clearing, identifying, between };

    void stop() { step_ = Step::off; }
    void begin(Step step, const Submission& command);
    void go_on(std::span<const std::uint32_t> ids);
    void hear();

    Admin& admin_;
    Step step_{Step::off};
    unsigned unit_{0};  ///< to be identified next
    log::RateLimit event_limit_;
};

}  // namespace hv::block::nvme
