include $(VARIANT_DIR)/../unix-gil/mpconfigvariant.mk
