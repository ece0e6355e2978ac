// SPDX-License-Identifier: MIT
#include "boot/main/host_devices.hpp"

#include "drivers/net/e1000.hpp"
#include "drivers/net/virtio_net_driver.hpp"
#include "drivers/virtio/pci_transport.hpp"
#include "vmm/base/log.hpp"
#include "vmm/base/text.hpp"

namespace hv::boot {
namespace {

using log::Topic;

constexpr std::uint8_t kMassStorage = 1, kSata = 6, kNvm = 8;
constexpr std::uint16_t kIntel = 0x8086, k82540em = 0x100e, k82574l = 0x10d3;
constexpr std::uint8_t kAhciBar = 5;  ///< ABAR [ahci 2.1.11 Offset 24h: ABAR]
/// A disk that spins may take that long for what it reads badly, and to write down what it has.
constexpr std::uint64_t kSataTimeoutNs = 30'000'000'000, kSataFlushTimeoutNs = 60'000'000'000;

}  // namespace

void HostDevices::discover() {
    for (const pci::Function& function : silence_all())
        start(function);
    for (DiskDirectory::Disk& disk : found_) {
        say_found(disk);
        if (const auto added = disks_.add(std::move(disk)); !added && added.error() == Error::no_memory)
            log::error(Topic::block, "no memory for the list of disks");
    }
    found_.clear();
    disks_.refresh();
}

/// Before a driver listens to a wire, nobody is left on it who has none.
Vec<pci::Function> HostDevices::silence_all() {
    Vec<pci::Function> driven;
    pci::enumerate(config_, 0, 255, [&](const pci::Function& function) {
        pci::silence(config_, function);
        if (driver_of(function).start != nullptr && !driven.push(function))
            leave_out(function, Error::no_memory);
    });
    return driven;
}

HostDevices::Driver HostDevices::driver_of(const pci::Function& function) {
    if (function.is_class(kMassStorage, kNvm))
        return {&HostDevices::start_nvme, &HostDevices::nvme_count_};
    if (function.is_class(kMassStorage, kSata))
        return {&HostDevices::start_ahci, &HostDevices::ahci_count_};
    if (virtio::device_type(function) == virtio::VIRTIO_ID_BLOCK)
        return {&HostDevices::start_virtio_blk, &HostDevices::virtio_count_};
    const bool e1000 =
        function.vendor == kIntel && (function.device == k82540em || function.device == k82574l);
    if (e1000 || virtio::device_type(function) == virtio::VIRTIO_ID_NET)
        return {&HostDevices::start_nic, &HostDevices::nic_count_};
    return {nullptr, nullptr};
}

void HostDevices::start(const pci::Function& function) {
    const Driver driver = driver_of(function);
    const unsigned number = (this->*driver.count)++;
    const std::size_t disks_before = found_.size();
    const auto attempt = [&]() -> Expected<void> {
        HV_TRY(driven_.push(HV_TRY(make<Driven>(*this, function, number))));
        HV_TRY(driven_.back()->pci.open());
        return (this->*driver.start)(*driven_.back());
    };
    if (const auto done = attempt(); !done) {
        leave_out(function, done.error());
        while (found_.size() > disks_before)
            found_.pop_back();
    }
}

void HostDevices::leave_out(const pci::Function& function, Error why) {
    const pci::Bdf& at = function.address;
    log::error(Topic::device, "PCI %02x:%02x.%x (%04x:%04x) is left out: %s", at.bus, at.device, at.function,
               function.vendor, function.device, to_string(why));
    pci::disable(config_, function);
}

// --- disks
// -----------------------------------------------------------------------------------------------------------

Expected<block::CommandEngine*> HostDevices::add_engine(Driven& driven, block::CommandHardware& hardware,
                                                        block::CommandEngine::Options options) {
    HV_TRY(driven.names.push(HV_TRY(make<Name>())));
    Name& name = *driven.names.back();
    name.append("%.*s", width(options.name), options.name.data());
    options.name = name.view();
    options.resized = resized;
    options.context = &driven;
    auto engine = HV_TRY(block::CommandEngine::create(hardware, clock_, pool_, options));
    HV_TRY(driven.engines.push(std::move(engine)));
    return driven.engines.back().get();
}

Expected<void> HostDevices::start_nvme(Driven& driven) {
    DeviceRegisters* registers = HV_TRY(driven.pci.bar(0));
    const unsigned vectors = HV_TRY(driven.pci.connect(
        interrupts_, PciDevice::Means::msix, block::CommandEngine::kMaxChannels, service_engine, &driven));
    driven.name.append("nvme%u", driven.number);
    driven.nvme = HV_TRY(
        block::NvmeController::create(*registers, pool_, clock_, {driven.name.view(), vectors, vectors}));
    block::NvmeController& nvme = *driven.nvme;
    block::CommandEngine::Options options{driven.name.view(), nvme.channels(), nvme.slots(),
                                          vectors < nvme.channels()};
    options.cut_off = cut_off;
    block::CommandEngine& engine = *HV_TRY(add_engine(driven, nvme, options));
    for (unsigned unit = 0; unit < nvme.disks().size(); ++unit)
        HV_TRY(add_disk(nvme.disk_name(unit), engine, nvme.disks()[unit]));
    driven.engine.store(&engine, std::memory_order_release);
    return {};
}

Expected<void> HostDevices::start_ahci(Driven& driven) {
    DeviceRegisters* registers = HV_TRY(driven.pci.bar(kAhciBar));
    driven.name.append("ahci@%02x:%02x.%x", driven.pci.function().address.bus,
                       driven.pci.function().address.device, driven.pci.function().address.function);
    driven.ahci =
        HV_TRY(block::AhciController::create(*registers, pool_, clock_, driven.name.view(), memory_end_));
    block::AhciController& ahci = *driven.ahci;
    for (const auto& port : ahci.ports()) {
        Name name;
        name.append("ahci%u", driven.number * block::ahci::kMaxPorts + port->number());
        block::CommandEngine& engine = *HV_TRY(
            add_engine(driven, *port,
                       {name.view(), 1, port->slots(), true, kSataTimeoutNs, kSataFlushTimeoutNs, cut_off}));
        HV_TRY(add_disk(name, engine, port->description()));
        ahci.set_engine(*port, engine);
    }
    if (ahci.ports().empty())
        return {};
    HV_TRY(driven.pci.connect(
        interrupts_, PciDevice::Means::single_vector, 1,
        [](void* controller) { static_cast<block::AhciController*>(controller)->service(); }, &ahci));
    ahci.service();
    return {};
}

Expected<void> HostDevices::start_virtio_blk(Driven& driven) {
    const unsigned vectors =
        HV_TRY(driven.pci.connect(interrupts_, PciDevice::Means::msix_only,
                                  block::CommandEngine::kMaxChannels, service_engine, &driven));
    const auto transport =
        HV_TRY(virtio::PciTransport::create(config_, driven.pci.function(), driven.pci.bars()));
    driven.name.append("virtio%u", driven.number);
    driven.virtio = HV_TRY(
        block::VirtioBlkDriver::create(transport, pool_, clock_, {driven.name.view(), vectors, vectors}));
    block::VirtioBlkDriver& disk = *driven.virtio;
    block::CommandEngine& engine = *HV_TRY(add_engine(
        driven, disk, {driven.name.view(), disk.channels(), disk.slots(), disk.shared_interrupt()}));
    HV_TRY(add_disk(driven.name, engine, disk.disk()));
    driven.engine.store(&engine, std::memory_order_release);
    return {};
}

/// The disks of one HBA are cut off together.
void HostDevices::cut_off(void* driven) {
    static_cast<Driven*>(driven)->pci.close();
}

void HostDevices::resized(void* driven) {
    const HostDevices& self = static_cast<Driven*>(driven)->host;
    self.resized_(self.context_);
}

/// An interrupt may come before there is an engine, and to a CPU that is not making it.
void HostDevices::service_engine(void* driven) {
    if (auto* engine = static_cast<Driven*>(driven)->engine.load(std::memory_order_acquire))
        engine->service();
}

Expected<void> HostDevices::add_disk(const Name& name, block::CommandEngine& engine,
                                     const block::DiskDescription& description) {
    DiskDirectory::Disk disk;
    disk.name = name;
    disk.model = description.model;
    disk.serial = description.serial;
    disk.identifier = description.identifier;
    disk.device = HV_TRY(engine.add_disk(description));
    disk.table = DiskDirectory::Disk::Table::outdated;
    return found_.push(std::move(disk));
}

void HostDevices::say_found(const DiskDirectory::Disk& disk) {
    const std::string_view name = disk.name.view();
    log::info(Topic::block, "%.*s: %.*s, serial %.*s, %llu MiB", width(name), name.data(),
              width(disk.model.view()), disk.model.view().data(), width(disk.serial.view()),
              disk.serial.view().data(),
              static_cast<unsigned long long>(disk.device->geometry().sectors / (kMiB / kSectorSize)));
}

// --- network interfaces
// --------------------------------------------------------------------------------------------

Expected<void> HostDevices::start_nic(Driven& driven) {
    driven.name.append("nic%u", driven.number);
    HV_TRY(nics_.push({driven.name, HV_TRY(make_nic(driven))}));
    const Nic& nic = nics_.back();
    const MacAddress mac = nic.device->mac();
    log::info(Topic::net, "%.*s: %.*s, %02x:%02x:%02x:%02x:%02x:%02x, link %s", width(nic.name.view()),
              nic.name.view().data(), width(nic.device->model()), nic.device->model().data(), mac[0], mac[1],
              mac[2], mac[3], mac[4], mac[5], nic.device->link_up() ? "up" : "down");
    driven.nic.store(nic.device.get(), std::memory_order_release);
    return {};
}

Expected<std::unique_ptr<NetDevice>> HostDevices::make_nic(Driven& driven) {
    const auto handler = [](void* self) {
        if (NetDevice* nic = static_cast<Driven*>(self)->nic.load(std::memory_order_acquire))
            nic->service();
    };
    PciDevice& pci = driven.pci;
    if (virtio::device_type(pci.function()) == virtio::VIRTIO_ID_NET) {
        const unsigned vectors =
            HV_TRY(pci.connect(interrupts_, PciDevice::Means::msix_only, 1, handler, &driven));
        const auto transport = HV_TRY(virtio::PciTransport::create(config_, pci.function(), pci.bars()));
        return HV_TRY(
            netdrv::VirtioNetDriver::create(transport, pool_, clock_, {driven.name.view(), vectors}));
    }
    DeviceRegisters* registers = HV_TRY(pci.bar(0));
    const bool e = pci.function().device == k82574l;
    auto nic = HV_TRY(netdrv::E1000::create(*registers, pool_, clock_, driven.name.view(),
                                            e ? netdrv::E1000Kind::i82574 : netdrv::E1000Kind::i8254x));
    HV_TRY(pci.connect(interrupts_, PciDevice::Means::single_vector, 1, handler, &driven));
    return nic;
}

// --- power off
// -------------------------------------------------------------------------------------------------------

void HostDevices::shut_down() {
    // All before the first is told: the ports of an HBA share it.
    for (const auto& driven : driven_) {
        for (const auto& engine : driven->engines)
            engine->stop();
    }
    for (const auto& driven : driven_) {
        if (driven->nvme != nullptr)
            driven->nvme->shut_down();
        if (driven->ahci != nullptr)
            driven->ahci->shut_down();
    }
}

}  // namespace hv::boot
