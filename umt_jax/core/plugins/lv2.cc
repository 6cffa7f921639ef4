// The plug-in for hosts of LV2 (https://lv2plug.in).

#include <lv2/atom/atom.h>
#include <lv2/atom/util.h>
#include <lv2/buf-size/buf-size.h>
#include <lv2/core/lv2.h>
#include <lv2/options/options.h>
#include <lv2/patch/patch.h>
#include <lv2/state/state.h>
#include <lv2/urid/urid.h>
#include <lv2/worker/worker.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "umt_jax/core/plugins/engine.h"

namespace {

constexpr char kUri[] = "urn:umt_jax:translator", kModelUri[] = "urn:umt_jax:translator#model";
constexpr size_t kMostPath = 4096;

enum Port {
  kIn,
  kOut,
  kDomain,
  kTemperature,
  kWet,
  kLevel,
  kFreewheel,
  kLatency,
  kDropouts,
  kControl
};
constexpr int kNumPorts = kControl + 1;

// What goes to the host's worker and comes back.
struct Message {
  umt::Engine* engine;   // To be freed, or, on its way back, to be played.
  char path[kMostPath];  // To be loaded, if there is any.
};

struct Plugin {
  void* ports[kNumPorts] = {};
  double rate_hz = 0;
  int most_block = 4096;  // Where the host does not say.
  umt::Engine* engine = nullptr;
  const LV2_Worker_Schedule* schedule = nullptr;
  LV2_URID path_type = 0, set = 0, property = 0, value = 0, model = 0, urid_type = 0, object = 0;

  float Control(Port port) const { return ports[port] ? *(const float*)ports[port] : 0; }

  // Never of the audio thread.
  umt::Engine* Load(const char* path) const {
    auto* loaded = new umt::Engine(path, rate_hz, most_block);
    if (!loaded->error().empty()) std::fprintf(stderr, "umt_jax: %s\n", loaded->error().c_str());
    return loaded;
  }
};

const void* Feature(const LV2_Feature* const* features, const char* uri) {
  for (; features && *features; ++features) {
    if (!std::strcmp((*features)->URI, uri)) return (*features)->data;
  }
  return nullptr;
}

LV2_Handle Instantiate(const LV2_Descriptor*, double rate_hz, const char* bundle,
                       const LV2_Feature* const* features) {
  const auto* map = (const LV2_URID_Map*)Feature(features, LV2_URID__map);
  if (!(rate_hz >= 1)) {
    std::fprintf(stderr, "umt_jax: the host names no sample rate, but %g Hz.\n", rate_hz);
    return nullptr;
  }
  // Without it, as in lv2apply, no other model can be named.
  auto id = [&](const char* uri) { return map ? map->map(map->handle, uri) : 0; };
  auto* plugin = new Plugin;
  plugin->rate_hz = rate_hz;
  plugin->schedule = (const LV2_Worker_Schedule*)Feature(features, LV2_WORKER__schedule);
  plugin->path_type = id(LV2_ATOM__Path);
  plugin->set = id(LV2_PATCH__Set);
  plugin->property = id(LV2_PATCH__property);
  plugin->value = id(LV2_PATCH__value);
  plugin->model = id(kModelUri);
  plugin->urid_type = id(LV2_ATOM__URID);
  plugin->object = id(LV2_ATOM__Object);
  const auto* option = (const LV2_Options_Option*)Feature(features, LV2_OPTIONS__options);
  const LV2_URID length = id(LV2_BUF_SIZE__maxBlockLength), number = id(LV2_ATOM__Int);
  for (; option && option->key; ++option) {
    if (!map || option->key != length || option->type != number || !option->value) continue;
    const int32_t most_block = *(const int32_t*)option->value;
    if (most_block > 0 && most_block <= 1 << 20) plugin->most_block = most_block;
  }
  const char* chosen = std::getenv("UMT_JAX_MODEL");
  const std::string own = std::string(bundle ? bundle : "") + "model.safetensors";
  plugin->engine = plugin->Load(chosen ? chosen : own.c_str());
  return plugin;
}

void ConnectPort(LV2_Handle handle, uint32_t port, void* data) {
  if (port < kNumPorts) ((Plugin*)handle)->ports[port] = data;
}

void Activate(LV2_Handle handle) { ((Plugin*)handle)->engine->Reset(); }

// Asks the worker for the model that a message names.
void ReadMessages(Plugin& plugin) {
  const auto* control = (const LV2_Atom_Sequence*)plugin.ports[kControl];
  if (!control || !plugin.schedule || !plugin.set) return;
  LV2_ATOM_SEQUENCE_FOREACH(control, event) {
    const auto* message = (const LV2_Atom_Object*)&event->body;
    if (message->atom.type != plugin.object || message->body.otype != plugin.set) continue;
    const LV2_Atom *property = nullptr, *value = nullptr;
    lv2_atom_object_get(message, plugin.property, &property, plugin.value, &value, 0);
    if (!property || property->type != plugin.urid_type || !value) continue;
    if (((const LV2_Atom_URID*)property)->body != plugin.model) continue;
    if (value->type != plugin.path_type || value->size == 0 || value->size >= kMostPath) continue;
    Message load = {};
    std::memcpy(load.path, value + 1, value->size);
    plugin.schedule->schedule_work(plugin.schedule->handle, sizeof load, &load);
  }
}

void Run(LV2_Handle handle, uint32_t count) {
  Plugin& plugin = *(Plugin*)handle;
  ReadMessages(plugin);
  umt::Engine& engine = *plugin.engine;
  const umt::Controls controls = {plugin.Control(kDomain), plugin.Control(kTemperature),
                                  plugin.Control(kWet), plugin.Control(kLevel)};
  engine.Process((const float*)plugin.ports[kIn], (float*)plugin.ports[kOut], count, controls,
                 plugin.Control(kFreewheel) > 0);
  if (plugin.ports[kLatency]) *(float*)plugin.ports[kLatency] = (float)engine.latency();
  if (plugin.ports[kDropouts]) *(float*)plugin.ports[kDropouts] = (float)engine.num_dropouts();
}

void Cleanup(LV2_Handle handle) {
  delete ((Plugin*)handle)->engine;
  delete (Plugin*)handle;
}

LV2_Worker_Status Work(LV2_Handle handle, LV2_Worker_Respond_Function respond,
                       LV2_Worker_Respond_Handle to, uint32_t size, const void* data) {
  if (size != sizeof(Message)) return LV2_WORKER_ERR_UNKNOWN;
  const auto* asked = (const Message*)data;
  if (!asked->path[0]) {
    delete asked->engine;
    return LV2_WORKER_SUCCESS;
  }
  Message loaded = {};
  loaded.engine = ((Plugin*)handle)->Load(asked->path);
  return respond(to, sizeof loaded, &loaded);
}

LV2_Worker_Status Respond(LV2_Handle handle, uint32_t size, const void* data) {
  if (size != sizeof(Message)) return LV2_WORKER_ERR_UNKNOWN;
  auto* plugin = (Plugin*)handle;
  Message free = {};
  free.engine = plugin->engine;
  plugin->engine = ((const Message*)data)->engine;
  return plugin->schedule->schedule_work(plugin->schedule->handle, sizeof free, &free);
}

LV2_State_Status Save(LV2_Handle handle, LV2_State_Store_Function store, LV2_State_Handle state,
                      uint32_t, const LV2_Feature* const* features) {
  const auto* plugin = (const Plugin*)handle;
  const auto* map = (const LV2_State_Map_Path*)Feature(features, LV2_STATE__mapPath);
  const auto* free_path = (const LV2_State_Free_Path*)Feature(features, LV2_STATE__freePath);
  if (!plugin->model) return LV2_STATE_ERR_NO_FEATURE;
  const std::string& path = plugin->engine->path();
  char* mapped = map ? map->abstract_path(map->handle, path.c_str()) : nullptr;
  const char* kept = mapped ? mapped : path.c_str();
  const auto status = store(state, plugin->model, kept, std::strlen(kept) + 1, plugin->path_type,
                            LV2_STATE_IS_POD | LV2_STATE_IS_PORTABLE);
  if (mapped && free_path) free_path->free_path(free_path->handle, mapped);
  if (mapped && !free_path) std::free(mapped);
  return status;
}

LV2_State_Status Restore(LV2_Handle handle, LV2_State_Retrieve_Function retrieve,
                         LV2_State_Handle state, uint32_t, const LV2_Feature* const* features) {
  auto* plugin = (Plugin*)handle;
  if (!plugin->model) return LV2_STATE_ERR_NO_FEATURE;
  size_t size = 0;
  uint32_t type = 0, flags = 0;
  const auto* kept = (const char*)retrieve(state, plugin->model, &size, &type, &flags);
  if (!kept || type != plugin->path_type) return LV2_STATE_ERR_NO_PROPERTY;
  const auto* map = (const LV2_State_Map_Path*)Feature(features, LV2_STATE__mapPath);
  const auto* free_path = (const LV2_State_Free_Path*)Feature(features, LV2_STATE__freePath);
  char* mapped = map ? map->absolute_path(map->handle, kept) : nullptr;
  // Not while it runs: the host does not call `Run` at the same time.
  umt::Engine* loaded = plugin->Load(mapped ? mapped : kept);
  if (mapped && free_path) free_path->free_path(free_path->handle, mapped);
  if (mapped && !free_path) std::free(mapped);
  delete plugin->engine;
  plugin->engine = loaded;
  return LV2_STATE_SUCCESS;
}

const void* ExtensionData(const char* uri) {
  static const LV2_State_Interface state = {Save, Restore};
  static const LV2_Worker_Interface worker = {Work, Respond, nullptr};
  if (!std::strcmp(uri, LV2_STATE__interface)) return &state;
  if (!std::strcmp(uri, LV2_WORKER__interface)) return &worker;
  return nullptr;
}

const LV2_Descriptor kDescriptor = {kUri, Instantiate, ConnectPort, Activate,
                                    Run,  nullptr,     Cleanup,     ExtensionData};

}  // namespace

LV2_SYMBOL_EXPORT const LV2_Descriptor* lv2_descriptor(uint32_t index) {
  return index == 0 ? &kDescriptor : nullptr;
}
