// SPDX-License-Identifier: MIT
#include "drivers/block/ahci_controller.hpp"

#include "vmm/base/text.hpp"

#include <bit>

namespace hv::block {

using ahci::HbaRegister;
using log::Topic;

namespace {

// Milliseconds. [ahci 10.6.3 OS declares ownership request], [ahci 10.4.3 HBA Reset]
constexpr unsigned kHandoffTime = 25, kBusyHandoffTime = 2'000, kResetTime = 1'000;

constexpr std::uint64_t kReachOf32Bits = std::uint64_t{1} << 32;

}  // namespace

Expected<std::unique_ptr<AhciController>> AhciController::create(DeviceRegisters& registers, DmaPool& pool,
                                                                 Clock& clock, std::string_view name,
                                                                 Hpa memory_end) {
    if (registers.size() < ahci::kPortRegisters + ahci::kPortStride)
        return Unexpected{Error::corrupted};
    // Nothing else may be looked at before [ahci 3.1.2 Offset 04h: GHC - Global HBA Control].
    registers.write32(static_cast<std::size_t>(HbaRegister::GHC), ahci::GHC_AE);
    std::unique_ptr<AhciController> controller{new (std::nothrow) AhciController{registers, clock, name}};
    if (controller == nullptr)
        return Unexpected{Error::no_memory};
    if (controller->hba_.read(HbaRegister::CAP) == ~0u)
        return Unexpected{Error::corrupted};
    if (!controller->hba_.is_64bit() && memory_end.raw > kReachOf32Bits) {
        log::warning(Topic::block, "%.*s reaches only the first 4 GiB of memory: its disks are left out",
                     width(name), name.data());
        return Unexpected{Error::unsupported};
    }
    controller->take_over();
    HV_TRY(controller->make_ports(pool));
    HV_TRY(controller->stop_ports());
    controller->find_disks();
    return controller;
}

void AhciController::take_over() {
    if ((hba_.read(HbaRegister::CAP2) & ahci::CAP2_BOH) == 0)
        return;
    const auto is_ours = [&] { return (hba_.read(HbaRegister::BOHC) & ahci::BOHC_BOS) == 0; };
    hba_.write(HbaRegister::BOHC, hba_.read(HbaRegister::BOHC) | ahci::BOHC_OOS);
    if (hba_.wait(kHandoffTime, is_ours))
        return;
    const bool busy = (hba_.read(HbaRegister::BOHC) & ahci::BOHC_BB) != 0;
    if (!busy || !hba_.wait(kBusyHandoffTime, is_ours)) {
        log::warning(Topic::block, "%.*s: firmware does not let go of it", width(hba_.name()),
                     hba_.name().data());
    }
}

Expected<void> AhciController::make_ports(DmaPool& pool) {
    const std::size_t room = (hba_.registers().size() - ahci::kPortRegisters) / ahci::kPortStride;
    const std::uint32_t implemented = hba_.read(HbaRegister::PI);
    for (unsigned number = 0; number < ahci::kMaxPorts && number < room; ++number) {
        if ((implemented >> number & 1) == 0)
            continue;
        auto io = HV_TRY(AhciPortIo::create(hba_, number, pool));
        // A port that firmware has powered up, and where nothing has answered since, costs no time.
        if (io.is_powered() && io.detection() == ahci::DET_NONE && io.stop())
            continue;
        auto port = HV_TRY(make<AhciPort>(std::move(io)));
        HV_TRY(ports_.push(std::move(port)));
    }
    return {};
}

Expected<void> AhciController::stop_ports() {
    bool stopped = true;
    for (auto& port : ports_)
        stopped = port->stop() && stopped;
    if (!stopped) {
        hba_.begin_reset();
        if (!hba_.wait(kResetTime, [&] { return !hba_.reset_under_way(); })) {
            log::warning(Topic::block, "%.*s hangs: its disks are left out", width(hba_.name()),
                         hba_.name().data());
            return Unexpected{Error::timed_out};
        }
    }
    hba_.enable();
    return {};
}

void AhciController::find_disks() {
    using Progress = CommandHardware::ResetProgress;
    std::array<Progress, ahci::kMaxPorts> progress{};
    for (auto& port : ports_)
        port->begin_start();
    // All at once, for disks that spin up take their time. Each ends within the bounds of its reset.
    for (bool pending = true; pending;) {
        pending = false;
        for (std::size_t i = 0; i < ports_.size(); ++i) {
            if (progress[i] == Progress::pending)
                progress[i] = ports_[i]->poll_reset();
            pending = pending || progress[i] == Progress::pending;
        }
        hba_.rest();
    }
    std::size_t kept = 0;
    for (std::size_t i = 0; i < ports_.size(); ++i) {
        if (progress[i] == Progress::done)
            std::swap(ports_[kept++], ports_[i]);
        else if (!ports_[i]->stop())
            static_cast<void>(ports_[i].release());  // the HBA may still write to its memory
    }
    while (ports_.size() > kept)
        ports_.pop_back();
    hba_.write(HbaRegister::IS, ~0u);
}

void AhciController::service() {
    const std::uint32_t causes = hba_.read(HbaRegister::IS);
    // The ports' first, or IS would be set again at once [ahci 5.5.3 Processing Completed Commands].
    for (auto& port : ports_) {
        if ((causes >> port->number() & 1) != 0)
            port->acknowledge();
    }
    hba_.write(HbaRegister::IS, causes);
    for (auto& port : ports_) {
        CommandEngine* const engine = engines_[port->number()];
        if ((causes >> port->number() & 1) != 0 && engine != nullptr)
            engine->service();
    }
}

void AhciController::shut_down() {
    for (auto& port : ports_)
        port->shut_down();
}

}  // namespace hv::block
